"""Runs exported detectors with NumPy, Pillow and onnxruntime or OpenVINO; without torch and without mmdet.

::

    from iouquery_runtime import Detector
    results = Detector('model.onnx')(['a.jpg', 'b.jpg'], score_thr=0.3)

``python -m iouquery_runtime model.onnx image.jpg --out found/`` draws them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .detector import Detector
    from .errors import InputError
    from .results import Result

__all__ = ['Detector', 'InputError', 'Result']

_MODULES = {'Detector': 'detector', 'InputError': 'errors', 'Result': 'results'}


def __getattr__(name: str) -> Any:
    """Imported when it is asked for, so that the command line is there to answer Ctrl-C while NumPy is imported."""
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'.{_MODULES[name]}', __name__), name)

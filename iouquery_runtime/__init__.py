"""Runs exported detectors with NumPy, Pillow and onnxruntime or OpenVINO; without torch and without mmdet.

::

    from iouquery_runtime import Detector
    results = Detector('model.onnx')(['a.jpg', 'b.jpg'], score_thr=0.3)

``python -m iouquery_runtime model.onnx image.jpg --out found/`` draws them.
"""

from .detector import Detector
from .errors import InputError
from .results import Result

__all__ = ['Detector', 'InputError', 'Result']

"""Sets of images: the check before training, and what a pipeline names.

Nothing here needs mmdet at import.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from .coco.checks import CocoReport, check_coco, check_config

__all__ = ['CocoReport', 'check_coco', 'check_config']

_MOVED = ('CocoSet', 'find_coco_set', 'read_data')
"""Names that stand in the package itself since 0.3.0."""


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    package = __name__.rpartition('.')[0]
    warnings.warn(
        f'{__name__}.{name} ends with 0.4.0; write: from {package} import {name}', DeprecationWarning, stacklevel=2
    )
    # at the call, because the package takes it from an app
    return getattr(importlib.import_module(package), name)

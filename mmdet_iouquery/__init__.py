"""RT-DETR and its kin for MMDetection 3.x, as parts that a config names.

``custom_imports = dict(imports=['mmdet_iouquery'])`` in a config registers everything. Without mmdet only the torch
functions in ``mmdet_iouquery.core`` are there.
"""

from __future__ import annotations

import sys
from typing import Any

from . import compat
from .version import __version__

__all__ = ['__version__', 'config_path', 'prepare_for_inference']


def _is_doctor_run() -> bool:
    """Whether this import serves ``python -m mmdet_iouquery.doctor``, which must speak where the check would raise.

    ``sys.orig_argv`` came with Python 3.10. Before, ``sys.argv[0]`` is ``-m`` while the module is being located, and
    the doctor is the one module of this package that is meant to be started so.
    """
    arguments = getattr(sys, 'orig_argv', None)
    if arguments is None:
        return sys.argv[:1] == ['-m']
    return ('-m', 'mmdet_iouquery.doctor') in zip(arguments, arguments[1:]) or '-mmmdet_iouquery.doctor' in arguments


def __getattr__(name: str) -> Any:
    if name == 'config_path':
        from .config_files import config_path

        return config_path
    if name == 'prepare_for_inference':
        from .deploy import prepare_for_inference

        return prepare_for_inference
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


if not _is_doctor_run():
    # The check comes first: it reads metadata only, so that no broken package is imported before it has spoken.
    compat.check_environment()
    compat.allow_own_checkpoints()
    if compat.mmdet_installed():
        compat.install_ops_stand_in()
        from . import engine, evaluation, models  # noqa: F401
        from .checkpoints import initializer  # noqa: F401
        from .datasets import augmentation, loading, seeded_batches, transforms  # noqa: F401

"""RT-DETR and its kin for MMDetection 3.x, as parts that a config names.

``custom_imports = dict(imports=['mmdet_iouquery'])`` in a config registers everything. Without mmdet only the torch
functions in ``mmdet_iouquery.core`` are there.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import compat
from .version import __version__

__all__ = [
    'Detector',
    '__version__',
    'accelerate_training',
    'config_path',
    'from_pretrained',
    'prepare_for_inference',
    'push_to_hub',
    'restore',
    'save_pretrained',
]


def _is_doctor_run() -> bool:
    """Whether this import serves ``python -m mmdet_iouquery.doctor``, which must speak where the check would raise.

    ``sys.orig_argv`` came with Python 3.10. Before, ``sys.argv[0]`` is ``-m`` while the module is being located, and
    the doctor is the one module of this package that is meant to be started so.
    """
    arguments = getattr(sys, 'orig_argv', None)
    if arguments is None:
        return sys.argv[:1] == ['-m']
    return ('-m', 'mmdet_iouquery.doctor') in zip(arguments, arguments[1:]) or '-mmmdet_iouquery.doctor' in arguments


@contextmanager
def _not_collecting_garbage() -> Iterator[None]:
    """What imports make stays: to look for garbage among it takes a fifth of their time, 1 s of 5."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def __getattr__(name: str) -> Any:
    if name in ('accelerate_training', 'restore'):
        from . import cpu

        return getattr(cpu, name)
    if name == 'Detector':
        from .apps.detector import Detector

        return Detector
    if name == 'config_path':
        from .config_files import config_path

        return config_path
    if name == 'prepare_for_inference':
        from .deploy import prepare_for_inference

        return prepare_for_inference
    if name in ('from_pretrained', 'push_to_hub', 'save_pretrained'):
        from .checkpoints import hub

        return getattr(hub, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


if not _is_doctor_run():
    # The check comes first: it reads metadata only, so that no broken package is imported before it has spoken.
    compat.check_environment()
    compat.allow_own_checkpoints()
    if compat.mmdet_installed():
        with _not_collecting_garbage(), compat.without_import_notes():
            compat.install_ops_stand_in()
            from . import engine, evaluation, models  # noqa: F401
            from .checkpoints import initializer  # noqa: F401
            from .datasets import (  # noqa: F401
                augmentation,
                loading,
                mosaic,
                multi_image,
                seeded_batches,
                stages,
                transforms,
            )

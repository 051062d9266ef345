"""RT-DETR and its kin for MMDetection 3.x, as parts that a config names.

``custom_imports = dict(imports=['mmdet_iouquery'])`` in a config registers everything. Without mmdet only the torch
functions in ``mmdet_iouquery.core`` are there.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from . import compat
from .version import __version__

if TYPE_CHECKING:
    from .apps.data.coco_set import CocoSet, find_coco_set
    from .apps.data.conversion import read_data
    from .apps.detector import Detector
    from .checkpoints.hub import from_pretrained, push_to_hub, save_pretrained
    from .config_files import config_path
    from .cpu import accelerate_training, restore
    from .deploy import prepare_for_inference
    from .errors import TrainingStopped

__all__ = [
    'CocoSet',
    'Detector',
    'TrainingStopped',
    '__version__',
    'accelerate_training',
    'config_path',
    'find_coco_set',
    'from_pretrained',
    'prepare_for_inference',
    'push_to_hub',
    'read_data',
    'register',
    'restore',
    'save_pretrained',
]

_MODULES = {
    'CocoSet': 'apps.data.coco_set',
    'Detector': 'apps.detector',
    'TrainingStopped': 'errors',
    'accelerate_training': 'cpu',
    'config_path': 'config_files',
    'find_coco_set': 'apps.data.coco_set',
    'from_pretrained': 'checkpoints.hub',
    'prepare_for_inference': 'deploy',
    'push_to_hub': 'checkpoints.hub',
    'read_data': 'apps.data.conversion',
    'restore': 'cpu',
    'save_pretrained': 'checkpoints.hub',
}
"""Where names are from that are imported when they are asked for."""

REGISTER_VARIABLE = 'MMDET_IOUQUERY_REGISTER'
"""Environment variable; ``later``: the import registers nothing, and who imports calls :func:`register`."""

_COMMANDS = ('mmdet_iouquery', 'mmdet_iouquery.doctor', 'mmdet_iouquery.run')


def _registers_later() -> bool:
    """Whether this import serves a command, which reads its arguments first, or must speak where the check would raise.

    The command ``iouquery`` says so by the variable. ``python -m`` imports this package before a module of it, and is
    told by ``sys.orig_argv``, which came with Python 3.10. Before, ``sys.argv[0]`` is ``-m`` while the module is being
    located, and the commands are the modules of this package that are meant to be started so.
    """
    if os.environ.get(REGISTER_VARIABLE) == 'later':
        return True
    arguments = getattr(sys, 'orig_argv', None)
    if arguments is None:
        return sys.argv[:1] == ['-m']
    pairs = [*zip(arguments, arguments[1:])]
    return any(('-m', name) in pairs or f'-m{name}' in arguments for name in _COMMANDS)


@functools.cache
def register() -> None:
    """Check the packages installed, stand in for operators that mmcv lacks, and fill mmdet's registries with the parts.

    An import of this package does it, but for one that serves a command. Once is enough: a second call does nothing.

    Raises:
        ImportError: the packages do not fit; the message has what was found, and the line that mends it.
    """
    # The check comes first: it reads metadata only, so that no broken package is imported before it has spoken.
    compat.check_environment()
    compat.allow_own_checkpoints()
    if compat.mmdet_installed():
        # what imports make stays: to look for garbage among it takes a fifth of their time, 1 s of 5
        with compat.without_garbage_collection(), compat.without_import_notes():
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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'.{_MODULES[name]}', __name__), name)


if not _registers_later():
    register()

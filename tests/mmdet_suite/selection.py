"""What of mmdet's tests is run, what is left out and why, and how an adapter takes its parent's place."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable
from unittest import mock

from mmengine.registry import Registry

MODELS_FOLDER = 'tests/test_models'
FOLDERS = (
    'test_backbones',
    'test_data_preprocessors',
    'test_dense_heads',
    'test_detectors',
    'test_layers',
    'test_losses',
    'test_necks',
    'test_task_modules',
    'test_utils',
)
LEFT_OUT = {
    'test_detectors/test_glip.py': 'fetches a tokenizer from the network',
    'test_detectors/test_kd_single_stage.py': 'fetches the weights of a teacher from the network',
    'test_data_preprocessors/test_boxinst_preprocessor.py': 'needs scikit-image, which mmdet does not require',
}
# The tests of the detectors that have an adapter, and the name in mmdet's registry that those tests build.
ADAPTED = {
    'test_detr.py': 'DETR',
    'test_conditional_detr.py': 'ConditionalDETR',
    'test_dab_detr.py': 'DABDETR',
    'test_deformable_detr.py': 'DeformableDETR',
    'test_dino.py': 'DINO',
    'test_ddq_detr.py': 'DDQDETR',
}
ADAPTER_PREFIX = 'IoUQuery'
# These have to run wherever torch runs; DDQ alone selects its queries with mmcv's NMS.
NEEDS_NO_OPERATOR = frozenset(ADAPTED) - {'test_ddq_detr.py'}


def targets(folder: Path, adapters: bool) -> list[str]:
    """What pytest is given, relative to ``folder``.

    Raises:
        FileNotFoundError: a name above is not among the tests, so that something renamed is not silently left out.
    """
    names = [f'test_detectors/{name}' for name in ADAPTED] if adapters else FOLDERS
    paths = [f'{MODELS_FOLDER}/{name}' for name in names]
    for path in paths:
        if not (folder / path).exists():
            raise FileNotFoundError(f'mmdet has no {path} any more')
    return paths


def left_out(path: Path) -> str | None:
    """Why a test file is not run at all; None when it is run."""
    name = path.as_posix().rpartition(f'{MODELS_FOLDER}/')[2]
    return LEFT_OUT.get(name)


def missing_operator(error: BaseException, file_name: str) -> str | None:
    """The compiled mmcv operator that a test asked for in vain; None where that is no excuse for ending with ``error``.

    The error must be the one that ``mmdet_iouquery``'s stand-in raises, so with compiled operators there is no excuse;
    the files in ``NEEDS_NO_OPERATOR`` have none either.
    """
    match = re.match(r"the compiled mmcv operator '(\w+)' was called", str(error))
    if match is None or not isinstance(error, RuntimeError) or file_name in NEEDS_NO_OPERATOR:
        return None
    return match.group(1)


def adapter_of(registry: Registry, parent: str) -> type:
    """The adapter registered for a detector of mmdet.

    Raises:
        LookupError: there is none, or it is not a subclass of that detector.
    """
    adapter = registry.get(ADAPTER_PREFIX + parent)
    if adapter is None or not issubclass(adapter, registry.get(parent)):
        raise LookupError(f'{ADAPTER_PREFIX}{parent} is not registered as a subclass of {parent}')
    return adapter


@contextmanager
def registered_over(registry: Registry, classes: Mapping[str, type]) -> Iterator[Counter[str]]:
    """Register each class over a taken name, and count how many of exactly that class are made; then undo both."""
    before = {name: registry.get(name) for name in classes}
    made: Counter[str] = Counter()
    with ExitStack() as stack:
        for name, cls in classes.items():
            stack.enter_context(mock.patch.object(cls, '__init__', _counting(cls, name, made)))
            stack.callback(registry.register_module, name=name, module=before[name], force=True)
            registry.register_module(name=name, module=cls, force=True)
        yield made


def _counting(cls: type, name: str, made: Counter[str]) -> Callable[..., None]:
    original: Callable[..., None] = cls.__init__  # type: ignore[misc]

    @functools.wraps(original)
    def init(self: object, *args: Any, **kwargs: Any) -> None:
        if type(self) is cls:
            made[name] += 1
        original(self, *args, **kwargs)

    return init

"""The import of mmdet: with a stand-in for mmcv's operators where they are not compiled, and without its notes."""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Callable, NoReturn

from .environment import compiled_ops_line, family_of, find_module, install_line, installed_versions

_NOTE = 'Could not import OneDL'


class _OpsStandIn(ModuleType):
    """Takes the place of ``mmcv._ext``: each operator exists, so that modules import, and says why when it is called.

    Names that begin with an underscore are left undefined, so that import machinery, ``inspect`` and ``pickle`` see a
    module without file and without path. The two questions about the compiler are answered as mmcv's ``collect_env``
    answers them without operators.
    """

    def __getattr__(self, name: str) -> Callable[..., str]:
        if name.startswith('_'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        answers = name in ('get_compiler_version', 'get_compiling_cuda_version')
        operator = _not_available if answers else _missing_operator(name)
        setattr(self, name, operator)
        return operator


def _not_available() -> str:
    return 'n/a'


def _missing_operator(name: str) -> Callable[..., NoReturn]:
    def operator(*_: object, **__: object) -> NoReturn:
        family = family_of(installed_versions()) or 'openmmlab'
        without = (
            'a head of anchors or points predicts without it by model.test_cfg.nms=None; ' if name == 'nms' else ''
        )
        raise RuntimeError(
            f'the compiled mmcv operator {name!r} was called, but the mmcv installed here has no compiled operators. '
            f'RT-DETR and the other parts of mmdet_iouquery use none; {without}for a detector that needs them: '
            f'{compiled_ops_line(family)}'
        )

    assert isinstance(operator, FunctionType)
    operator.__name__ = operator.__qualname__ = name
    operator.__module__ = 'mmcv._ext'
    return operator


def ops_state() -> str:
    """``compiled``, ``stand-in``, ``missing`` (mmcv without operators, no stand-in yet) or ``no mmcv``."""
    module = sys.modules.get('mmcv._ext')
    if module is not None:
        return 'stand-in' if isinstance(module, _OpsStandIn) else 'compiled'
    spec = find_module('mmcv')
    if spec is None:
        return 'no mmcv'
    return 'missing' if PathFinder.find_spec('mmcv._ext', spec.submodule_search_locations) is None else 'compiled'


def install_ops_stand_in() -> None:
    """Make ``import mmdet`` work where mmcv has no compiled operators. Compiled operators are left untouched.

    mmdet imports ``mmcv.ops``, and every module in there asks ``mmcv._ext`` for its operators at import. Must run
    before mmdet is imported; calling it again changes nothing.

    Raises:
        ImportError: compiled operators exist but do not load, as happens when they were built for another torch.
    """
    state = ops_state()
    if state == 'compiled':
        _require_loadable_ops()
    if state != 'missing':
        return
    stand_in = _OpsStandIn('mmcv._ext', 'Stand-in of mmdet_iouquery for the compiled operators of mmcv.')
    stand_in.__spec__ = ModuleSpec('mmcv._ext', loader=None, origin='mmdet_iouquery.compat')
    stand_in.__package__ = 'mmcv'
    mmcv = importlib.import_module('mmcv')
    sys.modules['mmcv._ext'] = stand_in
    mmcv._ext = stand_in  # type: ignore[attr-defined]


def _require_loadable_ops() -> None:
    if 'mmcv._ext' in sys.modules:
        return
    try:
        importlib.import_module('torch')  # the operators link against torch's libraries
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        family = family_of(installed_versions()) or 'openmmlab'
        raise ImportError(
            f'mmcv or its compiled operators do not load: {error}\n'
            '  the usual reason is that they were built for another version of torch\n'
            f'  build them again: {compiled_ops_line(family)}\n'
            f'  or do without them: python -m pip uninstall -y onedl-mmcv mmcv && {install_line(family)} --no-cache-dir'
        ) from error


@contextmanager
def without_import_notes() -> Iterator[None]:
    """Inside, what onedl's mmdet says of optional packages when it is imported is kept back; all else is printed after.

    That metrics would not be computed without faster-coco-eval is true of its own metric of that name alone.
    """
    warnings.filterwarnings('ignore', 'faster_coco_eval is not installed, metrics will not be computed')
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        lines = printed.getvalue().splitlines(keepends=True)
        sys.stdout.writelines(line for line in lines if not line.startswith(_NOTE))

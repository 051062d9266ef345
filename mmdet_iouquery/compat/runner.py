"""mmengine's runs: their checkpoints' types, their config's name, mmdet's evaluator, and what they were building.

What a function was at work on when it raised is read from its frames: mmengine tells it in no other way.
"""

from __future__ import annotations

import copy
import importlib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Callable, NamedTuple

from .environment import distribution_version, find_module

STATISTICS = ('min', 'max', 'current', 'mean')


def allow_own_checkpoints() -> None:
    """Let ``torch.load`` read the training checkpoints that mmengine writes, without allowing code to run.

    From torch 2.6 on, ``torch.load`` accepts only tensors and plain containers. A checkpoint of mmengine's Runner also
    holds the log history (``HistoryBuffer``, numpy arrays and scalars), and mmengine 0.10.7 then cannot resume. The
    types that it needs, and nothing else, are named here through ``torch.serialization.add_safe_globals``.

    ``HistoryBuffer`` pickles its statistics as ``getattr(HistoryBuffer, 'mean')``. The real ``getattr`` would let a
    file reach any attribute, so the name is answered by :func:`_history_statistic`, which knows these methods only.
    Therefore a checkpoint whose owner registered statistics of their own, or put other objects into the message hub,
    is still refused by torch; it has to be loaded with ``weights_only=False`` by someone who trusts it.

    Every entry is a pair (object, name) and not the bare object, because newer mmengine takes the bare objects off the
    list again after each of its own loads. Does nothing without mmengine.
    """
    if find_module('torch') is None or find_module('mmengine') is None:
        return
    import torch

    torch.serialization.add_safe_globals(_safe_objects())


@contextmanager
def batches_counted_from(loop: Any, first: int) -> Iterator[None]:
    """Have mmengine's epoch-based loop number its batches from ``first`` on; an earlier process has had those before.

    It counts what its data loader gives, so that hooks, the log among them, would take the rest of an epoch that is
    entered in its middle for a whole one, whose last batch never comes.
    """
    run_iter = loop.run_iter

    def counted(idx: int, data_batch: Any) -> None:
        run_iter(first + idx, data_batch)

    loop.run_iter = counted
    try:
        yield
    finally:
        del loop.run_iter


def forget_visualizers() -> None:
    """Have the next run make a visualizer of its own.

    mmengine keeps them by name for the whole process, so that a second run would write into the folder of the first.
    """
    from mmengine.visualization import Visualizer

    kinds: list[Any] = [Visualizer]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        getattr(kind, '_instance_dict', {}).clear()


def _safe_objects() -> list[Any]:
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    reconstruct, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    objects: list[Any] = [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_history_statistic, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
    ]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # as written by numpy 1 and by numpy 2
        objects += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    for dtype in {type(np.dtype(code)) for code in '?bBhHiIlLqQefdSU'}:
        objects.append((dtype, f'{dtype.__module__}.{dtype.__qualname__}'))
    return objects


def _history_statistic(owner: object, name: str) -> object:
    """The one use of ``getattr`` that a checkpoint is granted: a statistic of ``HistoryBuffer``."""
    import pickle

    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in STATISTICS:
        raise pickle.UnpicklingError(f'a checkpoint may not read the attribute {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


def dumped_as(cfg: Any, name: str) -> Any:
    """A copy of an mmengine ``Config`` that a runner writes into its work folder as ``name``.

    A runner writes the resolved config under the base name of the file that it was read from.
    """
    cfg = copy.deepcopy(cfg)
    state = list(cfg.__getstate__())
    if state[1] != cfg.filename:
        raise RuntimeError(
            f'mmengine {distribution_version("mmengine")} keeps a Config in another way than is known; install the '
            'tested version, which python -m mmdet_iouquery.doctor names'
        )
    state[1] = str(Path(cfg.filename).with_name(name))
    cfg.__setstate__(tuple(state))
    return cfg


# --- the evaluator of mmdet's metric ----------------------------------------------------------------------------------

_COCO_METRIC = 'mmdet.evaluation.metrics.coco_metric'
_EVALUATORS = ('COCOeval', 'COCOevalMP')
"""Names in that module by which its ``CocoMetric`` calls an evaluator."""


def has_box_evaluator() -> bool:
    """Whether mmdet's ``CocoMetric`` is as :func:`boxes_evaluated_by` needs it."""
    return hasattr(importlib.import_module(_COCO_METRIC), _EVALUATORS[0])


def annotations_of(metric: Any) -> Mapping[Any, Mapping[str, Any]]:
    """The annotations, by their ids, that a ``CocoMetric`` has read; none where it makes them of its data set."""
    coco = getattr(metric, '_coco_api', None)
    return {} if coco is None else coco.anns


@contextmanager
def boxes_evaluated_by(evaluator: Callable[..., Any]) -> Iterator[None]:
    """Inside, mmdet's ``CocoMetric`` evaluates boxes with ``evaluator(truth, detections, 'bbox')``, masks as ever.

    It offers no choice but asks for its evaluator by a name of its module, which means another one until the end, for
    all threads.
    """
    module = importlib.import_module(_COCO_METRIC)
    usual = {name: getattr(module, name) for name in _EVALUATORS if hasattr(module, name)}
    try:
        for name, parents in usual.items():
            setattr(module, name, partial(_make_evaluator, evaluator, parents))
        yield
    finally:
        for name, parents in usual.items():
            setattr(module, name, parents)


def _make_evaluator(
    boxes: Callable[..., Any], parents: Callable[..., Any], truth: Any, detections: Any, kind: str
) -> Any:
    return (boxes if kind == 'bbox' else parents)(truth, detections, kind)


def load_weights_and_average(runner: Any, path: str) -> None:
    """Take a model's weights and their moving average from a checkpoint of the same training, and nothing else.

    A checkpoint holds the average where the weights are looked for. mmengine's ``EMAHook`` puts both in their places
    for a run that is resumed; in any other it would begin anew from the average.
    """
    resumes, runner._resume = runner._resume, True
    try:
        runner.load_checkpoint(path, map_location='cpu', strict=True)
    finally:
        runner._resume = resumes


class Building(NamedTuple):
    """What mmengine builds an object from."""

    cfg: Mapping[str, Any]
    type: Any = None
    """As the config names it; None: not read yet."""
    registry: Any = None
    """Where it is looked for."""
    kind: Any = None
    """The class or function of that name; None: not found."""


class Call(NamedTuple):
    """A function that an exception came through. It keeps alive what it refers to."""

    module: str
    function: str
    owner: Any
    """The object whose method it is; None: of none."""
    arguments: dict[str, Any]
    """Positional ones but for the owner, by the names of the parameters; values as last bound to them."""
    building: Building | None
    """None: it builds nothing."""


def end_data_workers(runner: Any) -> None:
    """End the processes that a runner's data loaders keep for the next epoch, as there is none.

    Left to the garbage collector, which finds a runner by its cycles of references, the queues of such workers are
    closed before these are told to end, and torch waits 5 s for each of them.
    """
    for name in ('_train_loop', '_val_loop', '_test_loop'):
        loop = getattr(runner, name, None)
        for owner in (getattr(loop, 'dataloader_iterator', None), getattr(loop, 'dataloader', None)):
            if getattr(owner, '_iterator', None) is not None:
                owner._iterator = None  # type: ignore[union-attr]


def calls(error: BaseException) -> list[Call]:
    """The functions that an exception came through, outermost first; of mmengine's, what they build."""
    return [_call(frame) for frame, _ in traceback.walk_tb(error.__traceback__)]


def _call(frame: FrameType) -> Call:
    code, local = frame.f_code, frame.f_locals
    names = [name for name in code.co_varnames[: code.co_argcount] if name != 'self']
    arguments = {name: local.get(name) for name in names}
    module = str(frame.f_globals.get('__name__'))
    return Call(module, code.co_name, local.get('self'), arguments, _building(module, code.co_name, local))


def _building(module: str, function: str, local: Mapping[str, Any]) -> Building | None:
    if function == 'build_dataloader':
        cfg = local.get('dataloader')
    elif module == 'mmengine.registry.build_functions':
        cfg = {} if function == 'build_runner_from_cfg' else local.get('cfg')  # the whole config is no entry of it
    else:
        return None
    details = (local.get(name) for name in ('obj_type', 'registry', 'obj_cls'))
    return Building(cfg, *details) if isinstance(cfg, Mapping) else None

"""mmdet's ``CocoMetric`` with a choice of what evaluates boxes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import FunctionType
from typing import Any, Callable

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from pycocotools.cocoeval import COCOeval

from ..errors import InputError
from .faster_coco import FASTER_COCO_EVAL, FasterCOCOeval, obstacle

FASTER, PLAIN = 'faster-coco-eval', 'pycocotools'
_EVALUATORS = ('COCOeval', 'COCOevalMP')
"""Names by which the parent calls the evaluator."""


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """``CocoMetric`` that evaluates boxes with faster-coco-eval where it is installed.

    Same arguments, metrics, tables and files as the parent, and the same numbers to the last digit. ``'bbox'`` and
    ``'proposal'`` are evaluated by the back end, ``'segm'`` and ``'proposal_fast'`` as in the parent.

    Args:
        ann_file: as in the parent, and so are all other arguments. ``use_mp_eval`` has no effect on boxes with
            faster-coco-eval, which uses all cores.
        backend: ``'faster-coco-eval'`` (``pip install faster-coco-eval``), ``'pycocotools'``, or
            ``'auto'``: the former where it can be used, else the latter. The log says which it is.

    Raises:
        InputError: an unknown back end, or one that cannot be used; an annotation of ``ann_file`` that lacks what the
            evaluation reads.
    """

    def __init__(self, ann_file: str | None = None, *, backend: str = 'auto', **settings: Any) -> None:
        if backend not in ('auto', FASTER, PLAIN):
            raise InputError(f"FastCocoMetric: backend must be 'auto', {FASTER!r} or {PLAIN!r}, got {backend!r}")
        reason = None if backend == PLAIN else _obstacle()
        if backend == FASTER and reason:
            raise InputError(
                f'FastCocoMetric: backend={FASTER!r} cannot be used: {reason}; install it with '
                f"\"python -m pip install '{FASTER_COCO_EVAL.requirement}'\" or set backend='auto'"
            )
        super().__init__(ann_file, **settings)
        if self._coco_api is not None:
            _check_annotations(ann_file, self._coco_api.anns)
        self.backend = PLAIN if backend == PLAIN or reason else FASTER
        why = f' ({FASTER}: {reason})' if reason else ''
        MMLogger.get_current_instance().info(f'FastCocoMetric: boxes are evaluated by {self.backend}{why}')

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """The parent's metrics of (ground truth, prediction) pairs."""
        parent = CocoMetric.compute_metrics
        if self.backend == FASTER:
            parent = _with_faster_evaluator(parent)
        metrics: dict[str, float] = parent(self, results)
        return metrics


def _obstacle() -> str | None:
    """Why boxes cannot be evaluated by faster-coco-eval; None where they can."""
    if _EVALUATORS[0] not in CocoMetric.compute_metrics.__code__.co_names:
        return f'the CocoMetric of this mmdet does not call {_EVALUATORS[0]} in compute_metrics'
    return obstacle()


def _with_faster_evaluator(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which gets ours where it asks for an evaluator; the original and its module stay untouched."""
    assert isinstance(function, FunctionType)
    scope = dict(function.__globals__)
    scope.update({name: partial(_evaluator, scope[name]) for name in _EVALUATORS if name in scope})
    return FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)


def _evaluator(parents: Callable[..., COCOeval], truth: Any, detections: Any, kind: str) -> COCOeval:
    """An evaluator of boxes, or what the parent would have taken."""
    return (FasterCOCOeval if kind == 'bbox' else parents)(truth, detections, kind)


def _check_annotations(ann_file: str | None, annotations: Mapping[Any, Mapping[str, Any]]) -> None:
    """Raise InputError where the evaluation would end in a KeyError, hours later."""
    for key, remedy in (('bbox', 'bbox = [x, y, w, h] in px'), ('area', 'area = w * h'), ('iscrowd', 'iscrowd = 0')):
        lacking = [number for number, one in annotations.items() if key not in one]
        if lacking:
            raise InputError(
                f'FastCocoMetric: {len(lacking)} annotations of {ann_file} lack {key!r}, the first with id '
                f'{lacking[0]!r}; add it to each ({remedy})'
            )

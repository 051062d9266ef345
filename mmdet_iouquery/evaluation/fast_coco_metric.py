"""mmdet's ``CocoMetric`` with a choice of what evaluates boxes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from ..compat import annotations_of, boxes_evaluated_by, has_box_evaluator
from ..errors import InputError
from ..version import FASTER_COCO_EVAL
from .faster_coco import FasterCOCOeval, obstacle

FASTER, PLAIN = 'faster-coco-eval', 'pycocotools'


@METRICS.register_module()
class FastCocoMetric(CocoMetric):
    """``CocoMetric`` that evaluates boxes with faster-coco-eval where it is installed.

    Same arguments, metrics, tables and files as the parent, and the same numbers but for rounding
    (:class:`~.faster_coco.FasterCOCOeval`). ``'bbox'`` and ``'proposal'`` are evaluated by the back end, ``'segm'``
    and ``'proposal_fast'`` as in the parent.

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
        _check_annotations(ann_file, annotations_of(self))
        self.backend = PLAIN if backend == PLAIN or reason else FASTER
        why = f' ({FASTER}: {reason})' if reason else ''
        MMLogger.get_current_instance().info(f'FastCocoMetric: boxes are evaluated by {self.backend}{why}')

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """The parent's metrics of (ground truth, prediction) pairs."""
        with boxes_evaluated_by(FasterCOCOeval) if self.backend == FASTER else nullcontext():
            metrics: dict[str, float] = super().compute_metrics(results)
        return metrics


def _obstacle() -> str | None:
    """Why boxes cannot be evaluated by faster-coco-eval; None where they can."""
    return obstacle() or (None if has_box_evaluator() else 'this mmdet takes no COCOeval from the module of CocoMetric')


def _check_annotations(ann_file: str | None, annotations: Mapping[Any, Mapping[str, Any]]) -> None:
    """Raise InputError where the evaluation would end in a KeyError, hours later."""
    for key, remedy in (('bbox', 'bbox = [x, y, w, h] in px'), ('area', 'area = w * h'), ('iscrowd', 'iscrowd = 0')):
        lacking = [number for number, annotation in annotations.items() if key not in annotation]
        if lacking:
            raise InputError(
                f'FastCocoMetric: {len(lacking)} annotations of {ann_file} lack {key!r}, the first with id '
                f'{lacking[0]!r}; add it to each ({remedy})'
            )

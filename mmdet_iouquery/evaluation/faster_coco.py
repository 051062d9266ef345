"""COCO's evaluation of boxes in C++: pycocotools' ``COCOeval`` with faster-coco-eval at work inside.

Shape shorthand: T IoU thresholds, R recall thresholds, K categories, A area ranges, M limits of detections an image,
E recall thresholds added for the engine.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from ..compat import distribution_version, in_range
from ..version import FASTER_COCO_EVAL

_HALVES = 0.5 ** np.arange(32)
_ONE_DETECTION = 1 / (1 + np.spacing(1))
"""What pycocotools gives for a precision of 1 of 1, because it keeps its denominators above 0."""

Record = dict[str, Any]
Numbers = NDArray[Any]


def obstacle() -> str | None:
    """Why faster-coco-eval cannot be used here; None where it can."""
    version = distribution_version(FASTER_COCO_EVAL.distributions[0])
    if version is None:
        return 'it is not installed'
    if not in_range(FASTER_COCO_EVAL, version):
        return f'{version} is installed and {FASTER_COCO_EVAL.allowed} is needed'
    try:
        importlib.import_module(FASTER_COCO_EVAL.module)
    except ImportError as error:
        return f'{version} does not import: {error}'
    return None


class FasterCOCOeval(COCOeval):
    """``COCOeval`` for boxes, several times faster, with the same ``eval`` and ``stats`` to the last bit.

    ``precision`` (T, R, K, A, M), ``recall`` (T, K, A, M) and ``scores`` come from faster-coco-eval. ``summarize``,
    which makes the twelve numbers of them, is pycocotools' own, because the two differ there: pycocotools takes the
    first number, mean AP, at 100 detections an image whatever the limits are, faster-coco-eval at the last limit.

    Ids of images and categories may be of any kind that pycocotools takes; the engine is given row numbers instead of
    them, as it keeps ids as floats. Boxes or scores that are not finite, which the two order differently, are left to
    pycocotools. The matches of single images, ``evalImgs``, are not kept.
    """

    def evaluate(self) -> None:
        """Evaluate and accumulate with the current ``params``."""
        p = self.params
        p.imgIds, p.maxDets = list(np.unique(p.imgIds)), sorted(p.maxDets)
        if p.useCats:
            p.catIds = list(np.unique(p.catIds))
        objects, detections = self._records(self.cocoGt), self._records(self.cocoDt)
        if not all(map(_is_finite, objects)) or not all(map(_is_finite, detections)):
            super().evaluate()
            return
        found = self._run(objects, detections)
        halves, precision = np.split(found['precision'], [len(_HALVES)], axis=1)
        self.evalImgs: list[Record] = []
        self.eval = dict(
            params=p,
            counts=list(precision.shape),
            precision=_rounded_down(precision, halves, self._count(objects)),
            recall=found['recall'],
            scores=found['scores'][:, len(_HALVES) :],
        )

    def accumulate(self, p: Any = None) -> None:
        """Nothing is left to do but for what pycocotools has evaluated."""
        if self.evalImgs:
            super().accumulate(p)

    def _records(self, coco: Any) -> list[Record]:
        """What the engine has to know of one side, in the order in which pycocotools takes it."""
        rows = {image: row for row, image in enumerate(self.params.imgIds)}
        columns = {category: column for column, category in enumerate(self.params.catIds)}
        return [
            {
                # only whether it is 0, which pycocotools takes for "not matched"; of equal ids the engine's table of
                # matched pairs, which nothing here reads, stays small
                'id': int(one['id'] != 0),
                'image_id': rows[one['image_id']],
                'category_id': columns[one['category_id']],
                'bbox': one['bbox'],
                'area': one['area'],
                'iscrowd': int(one['iscrowd']),
                'score': one.get('score', 0.0),
            }
            for one in coco.loadAnns(coco.getAnnIds(imgIds=self.params.imgIds))
            if one['category_id'] in columns
        ]

    def _run(self, objects: list[Record], detections: list[Record]) -> Mapping[str, Numbers]:
        """The engine's ``precision`` (T, E + R, K, A, M), ``recall`` and ``scores``."""
        p = self.params
        ids = range(len(p.imgIds)), range(len(p.catIds))
        faster: Any = importlib.import_module(FASTER_COCO_EVAL.module)
        engine = faster.COCOeval_faster(_Side(objects, *ids), _Side(detections, *ids), 'bbox')
        for name in ('iouThrs', 'maxDets', 'areaRng', 'areaRngLbl', 'useCats'):
            setattr(engine.params, name, getattr(p, name))
        engine.params.recThrs = np.concatenate([_HALVES, p.recThrs])
        engine.evaluate()
        engine.accumulate()
        found: Mapping[str, Numbers] = engine.eval
        return found

    def _count(self, objects: list[Record]) -> Numbers:
        """How many objects there are to find, (K, A); K is 1 where categories are not told apart."""
        p = self.params
        counted = [one for one in objects if not one['iscrowd']]
        areas = np.array([one['area'] for one in counted], dtype=float)
        columns = np.array([one['category_id'] if p.useCats else 0 for one in counted], dtype=int)
        number = len(p.catIds) if p.useCats else 1
        inside = [(areas >= low) & (areas <= high) for low, high in p.areaRng]
        return np.stack([np.bincount(columns[one], minlength=number) for one in inside], axis=1)


class _Side:
    """Objects or detections as the engine asks for them: the few methods of a ``COCO`` that it calls."""

    def __init__(self, records: list[Record], image_ids: Sequence[int], category_ids: Sequence[int]) -> None:
        self.records, self.image_ids, self.category_ids = records, image_ids, category_ids

    def getImgIds(self) -> Sequence[int]:
        return self.image_ids

    def getCatIds(self) -> Sequence[int]:
        return self.category_ids

    def getAnnIds(self, imgIds: Any, catIds: Any) -> Sequence[int]:
        return range(len(self.records))

    def loadAnns(self, ids: Sequence[int]) -> list[Record]:
        return self.records


def _is_finite(record: Record) -> bool:
    return math.isfinite(sum(record['bbox'], record['area'] + record['score']))


def _rounded_down(precision: Numbers, halves: Numbers, count: Numbers) -> Numbers:
    """Precision as pycocotools has it: just under 1 where it is 1 by a single detection.

    It is 1 by more than one where it still is at a recall of two objects.

    Args:
        precision: (T, R, K, A, M).
        halves: (T, E, K, A, M), precision at recalls of 1, 1/2, 1/4, ..., one of which lies in (1 / count, 2 / count].
        count: (K, A) int, the objects to find.
    """
    step = np.frexp(np.maximum(count, 2) - 1)[1] - 1  # n / 2 <= 2 ** step < n
    second = np.take_along_axis(halves, step[None, None, :, :, None], axis=1) == 1
    single = (precision == 1) & ~(second & (count > 1)[None, None, :, :, None])
    return np.where(single, _ONE_DETECTION, precision)

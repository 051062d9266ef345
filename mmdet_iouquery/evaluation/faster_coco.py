"""COCO's evaluation of boxes in C++: faster-coco-eval's evaluator in the place of pycocotools' ``COCOeval``.

Shape shorthand: T IoU thresholds, R recall thresholds, K categories, A area ranges, M limits of detections an image.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from ..compat import distribution_version, in_range
from ..version import FASTER_COCO_EVAL


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
    """``COCOeval`` for boxes, several times faster, with the same ``eval`` and ``stats`` but for rounding.

    ``precision`` (T, R, K, A, M), ``recall`` (T, K, A, M) and ``scores`` come from faster-coco-eval. ``summarize``,
    which makes the twelve numbers of them, is pycocotools' own, because the two differ there: pycocotools takes the
    first number, mean AP, at 100 detections an image whatever the limits are, faster-coco-eval at the last limit.

    The precision of a single right detection is 1, where pycocotools has 1 - 2.2e-16, as it keeps denominators above 0.
    The twelve numbers differ by as little; one of exactly 0.1875 is then rounded to 0.188, by pycocotools to 0.187.

    What the engine treats otherwise is left to pycocotools: boxes or scores that are not finite, and ids that are not
    whole numbers in [0, 2^53). The matches of single images, ``evalImgs``, are not kept.
    """

    def evaluate(self) -> None:
        """Evaluate and accumulate with the current ``params``."""
        if not all(_fits(annotation) for coco in (self.cocoGt, self.cocoDt) for annotation in coco.anns.values()):
            super().evaluate()
            return
        faster: Any = importlib.import_module(FASTER_COCO_EVAL.module)
        engine = faster.COCOeval_faster(self.cocoGt, self.cocoDt, 'bbox')
        self.params.maxDets = sorted(self.params.maxDets)
        for name in ('imgIds', 'catIds', 'iouThrs', 'recThrs', 'maxDets', 'areaRng', 'areaRngLbl', 'useCats'):
            setattr(engine.params, name, getattr(self.params, name))
        engine.evaluate()
        engine.accumulate()
        self.evalImgs: list[dict[str, Any]] = []
        self.eval = {**engine.eval, 'params': self.params}

    def accumulate(self, p: Any = None) -> None:
        """Nothing is left to do but for what pycocotools has evaluated."""
        if self.evalImgs:
            super().accumulate(p)


def _fits(annotation: Mapping[str, Any]) -> bool:
    """Whether the engine treats an object or a detection as pycocotools does."""
    ids = (annotation[key] for key in ('id', 'image_id', 'category_id'))
    whole = all(isinstance(number, (int, np.integer)) and 0 <= number < 2**53 for number in ids)
    values = sum(annotation['bbox'], annotation['area'] + annotation.get('score', 0.0))
    return whole and math.isfinite(values)

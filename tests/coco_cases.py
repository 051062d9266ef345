"""Sets and detections for tests of COCO's evaluation, in COCO's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from mmdet_iouquery.evaluation.faster_coco import obstacle

REASON = obstacle()
with_faster = pytest.mark.skipif(REASON is not None, reason=f'faster-coco-eval cannot be used: {REASON}')
SQUARE = [10.0, 10.0, 40.0, 40.0]
# the twelve, in COCO's order and by mmdet's names
NUMBERS = [
    *('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'),
    *('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000'),
]


class Case(NamedTuple):
    """A set in COCO's form and its detections in COCO's form, boxes x, y, w, h."""

    truth: dict[str, Any]
    detections: list[dict[str, Any]]


def make_case(
    objects: Sequence[tuple[Any, ...]],
    detections: Sequence[tuple[Any, ...]],
    images: Sequence[Any] = (1,),
    classes: Sequence[Any] = (1,),
    first_id: int = 1,
) -> Case:
    """A case of objects (image, class, box) or (image, class, box, crowd) and detections (image, class, box, score)."""
    annotations = [
        dict(id=number, image_id=i, category_id=c, bbox=box, area=box[2] * box[3], iscrowd=int(any(crowd)))
        for number, (i, c, box, *crowd) in enumerate(objects, start=first_id)
    ]
    truth = dict(
        images=[dict(id=i, width=640, height=480) for i in images],
        annotations=annotations,
        categories=[dict(id=c, name=f'class {c}') for c in classes],
    )
    return Case(truth, [dict(image_id=i, category_id=c, bbox=box, score=score) for i, c, box, score in detections])


def grid(number: int, side: float = 10.0) -> list[list[float]]:
    """Boxes that do not touch."""
    return [[12 * (k % 40), 12 * (k // 40), side, side] for k in range(number)]


def random_case(seed: int) -> Case:
    """Small sets with every trouble at once.

    Boxes and scores of few values, so that overlaps and scores are often equal; crowds; areas that are not the box's;
    images without objects, without detections, without both, or with more than 100 detections of a class; classes
    without objects; ids with gaps and out of order, at times an annotation's id 0.
    """
    rng = np.random.default_rng(seed)
    number = int(rng.integers(1, 6))
    classes = (rng.permutation(90)[:number] * 7).tolist()
    images = rng.permutation(10**6)[: rng.integers(1, 9)].tolist()
    objects, detections = [], []
    for image in images:
        rows = []
        for _ in range(rng.integers(0, 7) * (rng.random() < 0.8)):
            box = [*rng.integers(0, 200, 2), *rng.choice([8, 16, 32, 50, 96, 130], 2)]
            rows.append((image, classes[rng.integers(max(1, number - 1))], box, rng.random() < 0.15))
        for _ in range(rng.choice([0, 5, 20, 250], p=[0.2, 0.4, 0.3, 0.1])):
            _, label, box, _ = (
                rows[rng.integers(len(rows))] if rows and rng.random() < 0.7 else (0, classes[-1], [0, 0, 9, 9], 0)
            )
            label = label if rng.random() < 0.9 else classes[rng.integers(number)]
            shifted = np.maximum(np.add(box, rng.choice([0, 0, 0, 2, 5, -3], 4)), 1)
            detections.append((image, label, shifted.astype(float).tolist(), int(rng.integers(0, 10)) / 8))
        objects += [(i, label, list(map(float, box)), crowd) for i, label, box, crowd in rows]
    case = make_case(objects, detections, images, classes, first_id=int(rng.integers(2)))
    for annotation in case.truth['annotations']:
        annotation['area'] *= float(rng.choice([1, 1, 0.5]))  # as a mask's
    return case

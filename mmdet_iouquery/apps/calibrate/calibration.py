"""Which score to cut at, and what a score is worth: detections judged against ground truth, thresholds, calibration.

Shape shorthand: K detections of an image, G of its objects, M detections of a whole set, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from ...evaluation.selection_quality import Objects, iou_of

Numbers = NDArray[Any]
WRONG, RIGHT, NEITHER = 0, 1, -1
SLOPE = 1e-3
"""Part of the score itself in a calibrated one. It keeps the calibration rising where precision is the same for a range
of scores, and moves it by less than this."""
_DIGITS = 6


class Judged(NamedTuple):
    """Detections of a set that are right or wrong, images in order, and how many objects there are to find."""

    scores: Numbers
    """(M,) in [0, 1]."""
    labels: Numbers
    """(M,) int."""
    right: Numbers
    """(M,) bool."""
    image: Numbers
    """(M,) int, number of the image."""
    objects: Numbers
    """(C,) int, objects of each class."""

    def of_class(self, label: int) -> Judged:
        """Those of one class, ``objects`` (1,)."""
        kept = self.labels == label
        scores, labels, right, image = (column[kept] for column in self[:4])
        return Judged(scores, labels, right, image, self.objects[label : label + 1])


class Cut(NamedTuple):
    """What is found above a score."""

    threshold: float
    """Detections must score above it; in [0, 1)."""
    precision: float
    """Part of the detections kept that is right, [0, 1]."""
    recall: float
    """Part of the objects that is found, [0, 1]."""
    f1: float
    """Harmonic mean of the two."""


class Calibration(NamedTuple):
    """A strictly rising, piecewise linear function of the score: ``test_cfg.calibration``."""

    scores: list[float]
    """Where the pieces meet, rising strictly from 0 to 1."""
    precision: list[float]
    """The values there, rising strictly within [0, 1]."""

    def __call__(self, scores: Numbers) -> Numbers:
        """Calibrated scores, of any shape."""
        return np.interp(scores, self.scores, self.precision)


def judge(
    boxes_px: Numbers, scores: Numbers, labels: Numbers, objects: Objects, ignored: Objects, iou: float = 0.5
) -> Numbers:
    """Match one image's detections with its objects as COCO's evaluation does, each class by itself.

    By falling score, each detection takes the object, of those not taken yet, that it overlaps most and by ``iou`` or
    more. One that gets none and has a part of ``iou`` or more of its area in an ignored box is neither right nor wrong.

    Args:
        boxes_px: (K, 4) corners. scores: (K,). labels: (K,) int.
        objects: what is to be found, in the same px.
        ignored: crowds, and whatever else is to be passed over.

    Returns:
        (K,) int, ``RIGHT``, ``WRONG`` or ``NEITHER``.
    """
    verdicts = np.full(len(scores), WRONG)
    overlaps = iou_of(boxes_px[:, None], objects.boxes_px[None]) * (labels[:, None] == objects.labels)
    free = np.ones(len(objects.labels), bool)
    candidates = (overlaps >= iou).any(axis=1)
    order = np.argsort(-scores, kind='stable')
    for row in order[candidates[order]]:
        fitting = np.where(free, overlaps[row], 0.0)
        best = len(fitting) - 1 - fitting[::-1].argmax()  # of equal overlaps the last, as pycocotools
        if fitting[best] >= iou:
            verdicts[row], free[best] = RIGHT, False
    covered = _part_inside(boxes_px[:, None], ignored.boxes_px[None]) * (labels[:, None] == ignored.labels)
    verdicts[(verdicts == WRONG) & (covered >= iou).any(axis=1)] = NEITHER
    return verdicts


def _part_inside(boxes_px: Numbers, others_px: Numbers) -> Numbers:
    """The part in [0, 1] of each box's area that lies inside the other, broadcast."""
    low, high = np.maximum(boxes_px[..., :2], others_px[..., :2]), np.minimum(boxes_px[..., 2:], others_px[..., 2:])
    area = (boxes_px[..., 2:] - boxes_px[..., :2]).prod(axis=-1)
    return np.asarray(np.clip(high - low, 0, None).prod(axis=-1) / np.maximum(area, 1e-7))


def joined(images: Iterable[tuple[Numbers, Numbers, Numbers, Numbers]], num_classes: int) -> Judged:
    """Put images together: of each the scores (K,), labels (K,), verdicts (K,) and the objects' labels (G,)."""
    columns: list[list[Numbers]] = [[np.zeros(0)], [np.zeros(0, int)], [np.zeros(0, bool)], [np.zeros(0, int)]]
    objects = np.zeros(num_classes, int)
    for number, (scores, labels, verdicts, truth) in enumerate(images):
        kept = verdicts != NEITHER
        parts = scores[kept], labels[kept], verdicts[kept] == RIGHT, np.full(kept.sum(), number)
        for column, values in zip(columns, parts):
            column.append(values)
        objects += np.bincount(truth, minlength=num_classes)
    scores, labels, right, image = (np.concatenate(column) for column in columns)
    return Judged(scores, labels, right, image, objects)


def best_cut(judged: Judged) -> Cut | None:
    """The threshold of the highest F1, over all classes that there are; of equal ones the highest threshold.

    It lies between the lowest score kept and the highest that is not, near the middle, with few digits. None: no
    detection is right, so that F1 is 0 everywhere.
    """
    if not judged.right.any():
        return None
    order = np.argsort(-judged.scores, kind='stable')
    scores, right = judged.scores[order], judged.right[order].cumsum()
    count, objects = np.arange(1, len(scores) + 1), int(judged.objects.sum())
    f1 = 2 * right / (count + objects)
    f1[:-1][scores[1:] == scores[:-1]] = -1  # equal scores are kept or left together
    last = int(f1.argmax())
    below = scores[last + 1] if last + 1 < len(scores) else 0.0
    return Cut(
        _between(float(below), float(scores[last])),
        float(right[last] / count[last]),
        float(right[last] / objects),
        float(f1[last]),
    )


def _between(low: float, high: float) -> float:
    """A number in [low, high), also when it is stored in single precision."""
    middle = (low + high) / 2
    rounded = (round(middle, digits) for digits in range(2, _DIGITS + 1))
    return next((value for value in rounded if low <= value and np.float32(value) < high), low)


def fit_calibration(scores: Numbers, right: Numbers) -> Calibration:
    """Precision as a rising function of the score, by isotonic regression.

    Within each block of the regression it is the block's precision, but for ``SLOPE``; between blocks, and from (0, 0)
    to the first and from the last to (1, 1), it goes straight. What is calibrated already stays as it is.

    Args:
        scores: (M,) in [0, 1]. right: (M,) bool.
    """
    points = [(x, y + SLOPE * (x - y)) for low, high, y in _isotonic_blocks(scores, right) for x in (low, high)]
    knots = [(0.0, 0.0)] if not points or points[0][0] > 0 else []
    for point in points:
        if not knots or all(value > before for value, before in zip(point, knots[-1])):
            knots.append(point)
    if knots[-1][0] < 1:
        knots.append((1.0, 1.0))
    return Calibration([x for x, _ in knots], [y for _, y in knots])


def held_out(judged: Judged) -> Numbers:
    """Scores (M,) calibrated by a fit to the other half of the images, odd ones by even ones and even by odd."""
    calibrated, odd = np.zeros(len(judged.scores)), judged.image % 2 == 1
    for half in (odd, ~odd):
        fit = fit_calibration(judged.scores[~half], judged.right[~half])
        calibrated[half] = fit(judged.scores[half])
    return calibrated


def _isotonic_blocks(scores: Numbers, right: Numbers) -> list[tuple[float, float, float]]:
    """Lowest score, highest score and precision of the blocks of the isotonic regression, all rising."""
    values, index = np.unique(scores, return_inverse=True)
    if not len(values):
        return []
    counts = np.bincount(index)
    fit = isotonic_regression(np.bincount(index, right) / counts, weights=counts)
    first, last = fit.blocks[:-1], fit.blocks[1:] - 1
    return list(zip(values[first].tolist(), values[last].tolist(), fit.x[first].tolist()))

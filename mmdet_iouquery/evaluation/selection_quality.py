"""How good the queries are that a selector takes: class score against IoU (RT-DETR, section 4.3, figure 6, table 4)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ..core import box_iou_elementwise
from ..errors import InputError

Numbers = NDArray[Any]
THRESHOLD = 0.5
BINS = 10


class Objects(NamedTuple):
    """Ground truth of an image."""

    boxes_px: Numbers
    """(G, 4), x1, y1, x2, y2."""
    labels: Numbers
    """(G,) int."""


class SelectedQueries(NamedTuple):
    """The encoder's prediction for each selected query of some images; M queries in all."""

    scores: Numbers
    """(M,), probability of the best class."""
    ious: Numbers
    """(M,), with the object of the image that the box overlaps most, of whatever class; 0 where there is none."""
    right_class: Numbers
    """(M,) bool: the best class is that object's; all False where the encoder tells objects from background only."""
    image: Numbers
    """(M,) int, number of the image."""

    @classmethod
    def joined(cls, parts: Iterable[SelectedQueries]) -> SelectedQueries:
        """Those of several images or sets, images numbered on."""
        parts, first = list(parts), 0
        if not parts:
            return cls(np.zeros(0), np.zeros(0), np.zeros(0, bool), np.zeros(0, int))
        images = []
        for queries in parts:
            images.append(queries.image + first)
            first += int(queries.image.max(initial=-1)) + 1
        scores, ious, right_class = (np.concatenate(x) for x in list(zip(*parts))[:3])
        return cls(scores, ious, right_class, np.concatenate(images))


class SelectionQuality(NamedTuple):
    """Numbers of a set of selected queries."""

    images: int
    queries: int
    score_above: int
    """Queries whose score is above 0.5."""
    iou_above: int
    """Queries whose IoU is above 0.5."""
    both_above: int
    """Queries with both above 0.5."""
    prop_score: float
    """``score_above`` in percent of all queries: the paper's Prop_cls."""
    prop_both: float
    """``both_above`` in percent of all queries: the paper's Prop_both."""
    right_class: float | None
    """Part of the queries of IoU above 0.5 whose class is the object's, in [0, 1]; None: there are no such queries."""
    spearman: float | None
    """Rank correlation of score and IoU, [-1, 1]; None: one of them is the same for all."""
    calibration_error: float
    """Mean distance of score and IoU over ten bins of the score, [0, 1]: :func:`calibration_error`."""


def iou_of(boxes_px: Numbers, others_px: Numbers) -> Numbers:
    """IoU of boxes (..., 4) in [0, 1], broadcast."""
    boxes, others = (torch.from_numpy(np.asarray(x, dtype=float)) for x in (boxes_px, others_px))
    return box_iou_elementwise(boxes, others).numpy()


def best_overlap(boxes_px: Numbers, objects: Objects) -> tuple[Numbers, Numbers]:
    """IoU (Q,) of boxes (Q, 4) with the object each overlaps most, and which that is (Q,) int; 0 without objects."""
    if not len(objects.labels):
        return np.zeros(len(boxes_px)), np.zeros(len(boxes_px), int)
    ious = iou_of(boxes_px[:, None], objects.boxes_px[None])
    return ious.max(axis=1), ious.argmax(axis=1)


def compare_with_objects(
    boxes_px: Numbers, scores: Numbers, labels: Numbers | None, objects: Objects
) -> SelectedQueries:
    """The selected queries of one image.

    Args:
        boxes_px: (Q, 4). scores: (Q,) in [0, 1]. labels: (Q,) int; None: the encoder names no class.
        objects: ground truth in the same px.
    """
    ious, nearest = best_overlap(boxes_px, objects)
    right = np.zeros(len(scores), bool)
    if labels is not None and len(objects.labels):
        right = (labels == objects.labels[nearest]) & (ious > 0)
    return SelectedQueries(np.asarray(scores, dtype=float), ious, right, np.zeros(len(scores), int))


def selection_quality(queries: SelectedQueries, threshold: float = THRESHOLD) -> SelectionQuality:
    """Sum up selected queries; ``threshold`` stands for 0.5 in all of :class:`SelectionQuality`.

    Raises:
        InputError: there are no queries.
    """
    if not len(queries.scores):
        raise InputError('there are no selected queries to sum up: the set holds no images; name a set with images')
    high_score, high_iou = queries.scores > threshold, queries.ious > threshold
    total, both = len(queries.scores), int((high_score & high_iou).sum())
    return SelectionQuality(
        images=int(queries.image.max()) + 1,
        queries=total,
        score_above=int(high_score.sum()),
        iou_above=int(high_iou.sum()),
        both_above=both,
        prop_score=100 * float(high_score.mean()),
        prop_both=100 * both / total,
        right_class=float(queries.right_class[high_iou].mean()) if high_iou.any() else None,
        spearman=rank_correlation(queries.scores, queries.ious),
        calibration_error=calibration_error(queries.scores, queries.ious),
    )


def rank_correlation(a: Numbers, b: Numbers) -> float | None:
    """Spearman's, equal values sharing their mean rank; None: fewer than two values, or one side is constant."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    value = float(spearmanr(a, b).statistic)
    return value if math.isfinite(value) else None


def calibration_error(scores: Numbers, ious: Numbers, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3) of a score that should be the IoU.

    Queries fall into ``bins`` bins of equal width of their score; the distance of mean score and mean IoU of each bin
    is averaged, weighted by the number of queries in it.
    """
    bin_of = np.minimum((np.asarray(scores) * bins).astype(int), bins - 1)
    gap = np.bincount(bin_of, np.asarray(scores) - np.asarray(ious), minlength=bins)
    return float(np.abs(gap).sum() / len(scores))


def both_above(queries: SelectedQueries, thresholds: Sequence[float] | Numbers) -> Numbers:
    """Number of queries (K,) whose score and IoU both exceed each of K thresholds."""
    lower = np.sort(np.minimum(queries.scores, queries.ious))
    return len(lower) - np.searchsorted(lower, np.asarray(thresholds), side='right')

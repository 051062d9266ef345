"""From outputs of the graph to detections, by the same rules as the head of the detector, in NumPy.

K detections, Q queries, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .metadata import Metadata


class Detections(NamedTuple):
    """Of one image, best first."""

    boxes: NDArray[Any]
    """(K, 4) float32, corners x1, y1, x2, y2 in px of the original image."""
    scores: NDArray[Any]
    """(K,), in [0, 1]: float32, or float64 where they are calibrated."""
    labels: NDArray[Any]
    """(K,) int64."""

    def where(self, kept: NDArray[Any]) -> Detections:
        """Those for which ``kept`` (K,) is True."""
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept])


def of_outputs(outputs: Mapping[str, NDArray[Any]], row: int, size: tuple[int, int], metadata: Metadata) -> Detections:
    """All detections of one image of the batch; of a raw graph, the best ``max_per_img`` pairs of query and class.

    Args:
        outputs: of the graph, by name.
        row: of the image.
        size: its width and height in px.
        metadata: of the graph.
    """
    if metadata.output == 'detections':
        return Detections(outputs['boxes'][row], outputs['scores'][row], outputs['labels'][row].astype(np.int64))
    return top_detections(outputs['logits'][row], outputs['boxes'][row], size, metadata.max_per_img)


def top_detections(logits: NDArray[Any], boxes: NDArray[Any], size: tuple[int, int], max_per_img: int) -> Detections:
    """The best pairs of query and class: sigmoid, no void class, one query may give several detections.

    Args:
        logits: (Q, C).
        boxes: (Q, 4), cx, cy, w, h, normalised.
        size: width and height of the image in px, at which the boxes are cut.
        max_per_img: K at most.
    """
    with np.errstate(over='ignore', under='ignore'):  # to infinity and 0, of which the sigmoid is 0 and 1
        scores = 1 / (1 + np.exp(-logits.astype(np.float32).reshape(-1)))
    best = np.argsort(-scores, kind='stable')[:max_per_img]
    query, labels = np.divmod(best, logits.shape[1])
    limit = np.asarray([*size, *size], dtype=np.float32)
    boxes_xyxy = _corners(boxes[query].astype(np.float32)) * limit
    return Detections(np.clip(boxes_xyxy, 0, limit), scores[best], labels.astype(np.int64))


def apply_settings(
    detections: Detections,
    score_thr: float | Sequence[float] | None,
    overlap_thr: float | None,
    calibration: Mapping[str, Sequence[float]] | None,
) -> Detections:
    """What a detector's ``test_cfg`` asks for, in the head's order: thresholds, then overlaps, then calibration."""
    if score_thr is not None and np.any(score_thr):
        thresholds = np.asarray(score_thr, dtype=np.float32)
        limit = thresholds[detections.labels] if thresholds.ndim else thresholds
        detections = detections.where(detections.scores > limit)
    if overlap_thr is not None:
        detections = detections.where(without_overlaps(detections.boxes, overlap_thr))
    if calibration is not None:
        scores = piecewise_linear(detections.scores, calibration['scores'], calibration['precision'])
        detections = detections._replace(scores=scores)
    return detections


def without_overlaps(boxes: NDArray[Any], threshold: float) -> NDArray[Any]:
    """Which boxes (K, 4), best first, stay when each takes away all later ones that overlap it by more than an IoU."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    union = areas[:, None] + areas[None] - intersection
    overlapping = intersection / np.maximum(union, np.float32(1e-7)) > np.float32(threshold)
    kept = np.ones(len(boxes), dtype=bool)
    for row in range(len(boxes)):
        if kept[row]:
            kept[row + 1 :] &= ~overlapping[row, row + 1 :]
    return kept


def piecewise_linear(x: NDArray[Any], knots: Sequence[float], values: Sequence[float]) -> NDArray[Any]:
    """The function that goes straight from each (knot, value) to the next one, in double precision."""
    x, at, heights = (np.asarray(array, dtype=np.float64) for array in (x, knots, values))
    right = np.clip(np.searchsorted(at, x), 1, len(at) - 1)
    left = right - 1
    share = (x - at[left]) / (at[right] - at[left])
    return heights[left] + share * (heights[right] - heights[left])


def _corners(boxes: NDArray[Any]) -> NDArray[Any]:
    """Centre and size to corners; a negative size counts as none."""
    centre, half = boxes[:, :2], np.float32(0.5) * np.maximum(boxes[:, 2:], 0)
    return np.concatenate([centre - half, centre + half], axis=1)

"""Numbers of a set's images and boxes, from its annotations alone, and which boxes look like mistakes.

NumPy on the arrays that the check has read; pandas would be one more requirement for medians and shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.coco.report import CheckedSet
from ...datasets.coco.small_boxes import Resizing

TINY = 4
"""Px of a shorter side at the network's input, half of what one token of the finest map covers."""
_COVERING = 0.98  # of both sides of the image
_SMALL, _MEDIUM = 32**2, 96**2  # COCO's


def usable(checked: CheckedSet) -> NDArray[Any]:
    """(A,) bool: boxes that CocoDataset hands on, crowds included."""
    return np.asarray(checked.wanted & ~checked.arrays.degenerate() & ~checked.arrays.ignored)


def boxes_per_image(checked: CheckedSet) -> NDArray[Any]:
    """(I,) int, usable boxes that are no crowds: what is to be found."""
    rows = checked.arrays.image_rows[usable(checked) & ~checked.arrays.crowd]
    return np.bincount(rows, minlength=len(checked.file_names))


def duplicates(checked: CheckedSet) -> NDArray[Any]:
    """(A,) bool: usable boxes that repeat an earlier one of the same image and class to the last digit."""
    arrays = checked.arrays
    rows = np.flatnonzero(usable(checked))
    keys = np.column_stack([arrays.image_rows[rows], arrays.category_rows[rows], arrays.boxes[rows]])
    repeats = np.ones(len(rows), dtype=bool)
    repeats[np.unique(keys, axis=0, return_index=True)[1]] = False
    repeated = np.zeros(len(arrays.boxes), dtype=bool)
    repeated[rows[repeats]] = True
    return repeated


def covering(checked: CheckedSet) -> NDArray[Any]:
    """(A,) bool: usable boxes over the whole image, or nearly."""
    low, far = checked.arrays.boxes[:, :2], checked.arrays.boxes[:, :2] + checked.arrays.boxes[:, 2:]
    inside = np.minimum(far, checked.arrays.sizes) - np.maximum(low, 0)
    return np.asarray(usable(checked) & (inside >= _COVERING * checked.arrays.sizes).all(axis=1))


def tiny(checked: CheckedSet, resizing: Resizing | None) -> NDArray[Any]:
    """(A,) bool: usable boxes whose shorter side is under 4 px at the network's input."""
    return np.asarray(usable(checked) & (_scaled(checked, resizing).min(axis=1) < TINY))


def _scaled(checked: CheckedSet, resizing: Resizing | None) -> NDArray[Any]:
    """Width and height (A, 2) of the boxes after the pipeline's ``Resize``."""
    sides = checked.arrays.boxes[:, 2:]
    return sides if resizing is None else sides * resizing.factors(checked.arrays.sizes)


def statistics(checked: CheckedSet, resizing: Resizing | None) -> dict[str, Any]:
    """Numbers for the report: spreads as (least, median, greatest), shares of boxes in [0, 1]."""
    sizes, keep = checked.arrays.image_sizes, usable(checked) & ~checked.arrays.crowd
    return dict(
        width=spread(sizes[:, 0]),
        height=spread(sizes[:, 1]),
        aspect=spread(sizes[:, 0] / np.maximum(sizes[:, 1], 1e-9)),
        boxes_per_image=spread(boxes_per_image(checked)),
        box_shares=_shares(checked.arrays.areas[keep]),
        network_box_shares=None if resizing is None else _shares(_scaled(checked, resizing)[keep].prod(axis=1)),
        shorter_side_at_network=spread(_scaled(checked, resizing)[keep].min(axis=1)),
    )


def spread(values: NDArray[Any]) -> tuple[float, float, float]:
    """Least, median and greatest; NaN of nothing."""
    if not len(values):
        return (float('nan'),) * 3
    return float(values.min()), float(np.median(values)), float(values.max())


def _shares(areas: NDArray[Any]) -> Mapping[str, float]:
    total = max(len(areas), 1)
    small, large = float((areas < _SMALL).sum()) / total, float((areas >= _MEDIUM).sum()) / total
    return dict(small=small, medium=1 - small - large if len(areas) else 0.0, large=large)

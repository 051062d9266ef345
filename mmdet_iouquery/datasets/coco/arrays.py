"""The annotations of a COCO JSON as arrays, and the errors of references and numbers that come to light on the way.

Shape shorthand: A annotations, I images. Boxes are x, y, w, h in px.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .json_file import CocoFile, Record

BORDER_TOLERANCE = 2.0
"""Px that a box may reach over its image's border without a word."""
_LARGEST_SIDE = 2**20  # of an image that OpenCV reads
_LARGEST_NUMBER = 1e9  # of a box, in px
_LARGEST_AREA = 1e10  # px^2; COCO's evaluation leaves out what is larger


@dataclass(frozen=True)
class CocoArrays:
    """One row an annotation, in the file's order.

    Attributes:
        image_rows: (A,) int64, the row of its image in ``CocoFile.images``.
        category_rows: (A,) int64, the row of its category in ``CocoFile.categories``.
        boxes: (A, 4) float64, x, y, w, h in px; NaN where the file says NaN.
        areas: (A,) float64, px^2.
        crowd: (A,) bool, ``iscrowd``.
        ignored: (A,) bool, ``ignore``: CocoDataset leaves such annotations out.
        image_sizes: (I, 2) float64, width, height in px.
    """

    image_rows: NDArray[Any]
    category_rows: NDArray[Any]
    boxes: NDArray[Any]
    areas: NDArray[Any]
    crowd: NDArray[Any]
    ignored: NDArray[Any]
    image_sizes: NDArray[Any]

    @property
    def sizes(self) -> NDArray[Any]:
        """Width and height of each annotation's image, (A, 2) in px."""
        return np.asarray(self.image_sizes[self.image_rows])

    def degenerate(self) -> NDArray[Any]:
        """(A,) bool: boxes that CocoDataset drops: a side under 1 px, NaN, no area, or outside the image."""
        return np.logical_or.reduce(list(self.degenerate_by_reason().values()))

    def degenerate_by_reason(self) -> dict[str, NDArray[Any]]:
        """What :meth:`degenerate` consists of: each such box with the first reason that holds, (A,) bool each."""
        common = np.minimum(self.boxes[:, :2] + self.boxes[:, 2:], self.sizes) - np.maximum(self.boxes[:, :2], 0)
        remaining = np.ones(len(self.boxes), dtype=bool)
        by_reason = {}
        for reason, holds in (
            ('NaN in bbox', np.isnan(self.boxes).any(axis=1)),
            ('a side under 1 px', (self.boxes[:, 2:] < 1).any(axis=1)),
            ('no part inside the image', (common <= 0).any(axis=1)),
            ('an area of 0 or less', self.areas <= 0),
        ):
            by_reason[reason] = remaining & holds
            remaining &= ~holds
        return by_reason

    def beyond_border(self, tolerance: float = BORDER_TOLERANCE) -> NDArray[Any]:
        """(A,) bool: boxes that reach over the image's border by more than ``tolerance`` px."""
        far = self.boxes[:, :2] + self.boxes[:, 2:]
        return np.asarray(((self.boxes[:, :2] < -tolerance) | (far > self.sizes + tolerance)).any(axis=1))

    def inside_as_corners(self) -> NDArray[Any]:
        """(A,) bool: boxes that lie inside their image, each with an extent, if they are read as x1, y1, x2, y2."""
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        inside = (low >= -BORDER_TOLERANCE) & (high <= self.sizes + BORDER_TOLERANCE)
        return np.asarray((inside & (high > low)).all(axis=1))

    def relative(self) -> NDArray[Any]:
        """(A,) bool: boxes of four numbers from 0 to 1, as shares of width and height are written."""
        return np.asarray(((self.boxes >= 0) & (self.boxes <= 1)).all(axis=1))


def coco_arrays(coco: CocoFile) -> CocoArrays:
    """Collect the arrays of a file.

    Raises:
        InputError: an annotation's image or category isn't in the file; a box, an area or an image's size is not made
            of numbers of a size that px can have (NaN in a box is let through, and counted later).
    """
    annotations = coco.annotations
    boxes = _numbers(coco, 'annotation', annotations, 'bbox', [annotation['bbox'] for annotation in annotations], 4)
    areas = _numbers(coco, 'annotation', annotations, 'area', [(annotation['area'],) for annotation in annotations], 1)[
        :, 0
    ]
    huge = np.flatnonzero((np.abs(boxes) > _LARGEST_NUMBER).any(axis=1) | (np.abs(areas) > _LARGEST_AREA))
    if huge.size:
        first = annotations[huge[0]]
        raise InputError(
            f'{coco.path}: annotation id {first["id"]!r} is infinite or larger than any image (bbox {first["bbox"]}, '
            f'area {first["area"]}); write px and px^2'
        )
    return CocoArrays(
        image_rows=_rows_of(coco, 'image', coco.images),
        category_rows=_rows_of(coco, 'category', coco.categories),
        boxes=boxes,
        areas=areas,
        crowd=np.array([annotation.get('iscrowd', 0) for annotation in annotations], dtype=bool),
        ignored=np.array([annotation.get('ignore', 0) for annotation in annotations], dtype=bool),
        image_sizes=_image_sizes(coco),
    )


def _image_sizes(coco: CocoFile) -> NDArray[Any]:
    sizes = [(image['width'], image['height']) for image in coco.images]
    stated = _numbers(coco, 'image', coco.images, 'width, height', sizes, 2)
    bad = np.flatnonzero(~((stated >= 1) & (stated <= _LARGEST_SIDE) & (stated == np.floor(stated))).all(axis=1))
    if bad.size:
        row = bad[0]
        raise InputError(
            f'{coco.path}: image id {coco.images[row]["id"]!r} has width, height {sizes[row]} ({bad.size} such '
            "images); write the image's size in whole px"
        )
    return stated


def _rows_of(coco: CocoFile, kind: str, records: list[Record]) -> NDArray[Any]:
    """Row in ``records`` of each annotation's image or category, (A,) int64."""
    row_of = {record['id']: row for row, record in enumerate(records)}
    key = f'{kind}_id'
    rows = np.array([row_of.get(annotation[key], -1) for annotation in coco.annotations], dtype=np.int64)
    lost = np.flatnonzero(rows < 0)
    if lost.size:
        first = coco.annotations[lost[0]]
        ids = ', '.join(repr(record['id']) for record in records[:10]) + (', ...' if len(records) > 10 else '')
        raise InputError(
            f'{coco.path}: annotation id {first["id"]!r} has {key} {first[key]!r}, which no {kind} of the file has '
            f"({lost.size} such annotations; the file's {kind} ids: {ids}); {_remedy(kind, first[key], row_of)}"
        )
    return rows


def _remedy(kind: str, wanted: Any, row_of: dict[Any, int]) -> str:
    """What to do about a reference that leads nowhere; it may be of another type only."""
    for known in row_of:
        if type(known) is not type(wanted) and str(known) == str(wanted):
            own_type, type_of_ids = ('text', 'numbers') if isinstance(wanted, str) else ('a number', 'text')
            records = 'images' if kind == 'image' else 'categories'
            right, wrong = json.dumps(known), json.dumps(wanted)
            return f'it is {own_type}, the ids of the {records} are {type_of_ids}: write {right} instead of {wrong}'
    return f'add the {kind} or remove the annotation'


def _numbers(
    coco: CocoFile, kind: str, records: list[Record], quantity: str, rows: list[Any], length: int
) -> NDArray[Any]:
    """``rows`` as float64 (len(rows), length); InputError naming the first record whose row isn't such numbers."""
    formed = all(isinstance(row, (list, tuple)) and len(row) == length for row in rows)
    try:
        if formed and set(map(type, chain.from_iterable(rows))) <= {int, float}:
            return np.array(rows, dtype=np.float64).reshape(len(rows), length)
    except OverflowError:  # a whole number that is no float
        pass
    record, row = next(pair for pair in zip(records, rows) if not _is_numbers(pair[1], length))
    shown = repr(row[0] if length == 1 else row)
    shown = shown if len(shown) <= 60 else shown[:57] + '...'
    raise InputError(f'{coco.path}: {kind} id {record["id"]!r} has {quantity} {shown}; write {length} number(s) in px')


def _is_numbers(row: Any, length: int) -> bool:
    if not isinstance(row, Sequence) or len(row) != length or not set(map(type, row)) <= {int, float}:
        return False
    return all(isinstance(value, float) or abs(value) < 1e300 for value in row)

"""The annotations of a COCO JSON as arrays, and the errors of ids and numbers that come to light on the way.

Shape shorthand: A annotations, I images, C categories of the file. Boxes are x, y, w, h in px.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .coco_json import CocoFile, Record


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

    image_rows: np.ndarray
    category_rows: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    image_sizes: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Width and height of each annotation's image, (A, 2) in px."""
        return np.asarray(self.image_sizes[self.image_rows])

    def degenerate(self) -> np.ndarray:
        """(A,) bool: boxes that CocoDataset drops: a side under 1 px, NaN, no area, or outside the image."""
        far = self.boxes[:, :2] + self.boxes[:, 2:]
        common = np.minimum(far, self.sizes) - np.maximum(self.boxes[:, :2], 0)
        # Every comparison with NaN is false, so asking what is kept catches it where asking what is dropped would not.
        kept = (common > 0).all(axis=1) & (self.boxes[:, 2:] >= 1).all(axis=1) & ~(self.areas <= 0)
        return np.asarray(~kept)

    def beyond_border(self, tolerance: float) -> np.ndarray:
        """(A,) bool: boxes that reach over the image's border by more than ``tolerance`` px."""
        far = self.boxes[:, :2] + self.boxes[:, 2:]
        return np.asarray(((self.boxes[:, :2] < -tolerance) | (far > self.sizes + tolerance)).any(axis=1))


def coco_arrays(coco: CocoFile) -> CocoArrays:
    """Collect the arrays of a file.

    Raises:
        InputError: An id or a category name is used twice; an annotation's image or category isn't in the file; a box,
            an area or an image's size is not made of finite numbers (NaN in a box is let through, and counted later).
    """
    check_ids(coco)
    annotations = coco.annotations
    boxes = _numbers(coco.path, 'annotation', annotations, 'bbox', [one['bbox'] for one in annotations], 4)
    areas = _numbers(coco.path, 'annotation', annotations, 'area', [(one['area'],) for one in annotations], 1)[:, 0]
    sizes = [(image['width'], image['height']) for image in coco.images]
    infinite = np.flatnonzero(np.isinf(boxes).any(axis=1) | np.isinf(areas))
    if infinite.size:
        first = annotations[infinite[0]]
        raise InputError(f'{coco.path}: annotation id {first["id"]!r} is infinite (bbox {first["bbox"]}); correct it')
    return CocoArrays(
        image_rows=_rows_of(coco, 'image', coco.images),
        category_rows=_rows_of(coco, 'category', coco.categories),
        boxes=boxes,
        areas=areas,
        crowd=np.array([bool(one.get('iscrowd', 0)) for one in annotations], dtype=bool),
        ignored=np.array([bool(one.get('ignore', 0)) for one in annotations], dtype=bool),
        image_sizes=_numbers(coco.path, 'image', coco.images, 'width, height', sizes, 2),
    )


def check_ids(coco: CocoFile) -> None:
    """Raise InputError for an id that two images, categories or annotations share, or a name of two categories."""
    for kind, records in (('image', coco.images), ('category', coco.categories), ('annotation', coco.annotations)):
        _check_unique(coco.path, kind, 'id', [record['id'] for record in records])
    _check_unique(coco.path, 'category', 'name', coco.classes)


def _check_unique(file: Path, kind: str, field: str, values: Sequence[Any]) -> None:
    if len(set(values)) == len(values):
        return
    value, count = Counter(values).most_common(1)[0]
    raise InputError(f'{file}: {kind} {field} {value!r} is used {count} times; give each {kind} its own {field}')


def _rows_of(coco: CocoFile, kind: str, records: list[Record]) -> np.ndarray:
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
            f"({lost.size} such annotations; the file's {kind} ids: {ids}); add the {kind} or remove the annotation"
        )
    return rows


def _numbers(file: Path, kind: str, records: list[Record], what: str, rows: list[Any], length: int) -> np.ndarray:
    """``rows`` as float64 (len(rows), length); InputError naming the first record whose row isn't such numbers."""
    formed = all(isinstance(row, (list, tuple)) and len(row) == length for row in rows)
    if not formed or not set(map(type, chain.from_iterable(rows))) <= {int, float}:
        record, row = next(pair for pair in zip(records, rows) if not _is_numbers(pair[1], length))
        found = row[0] if length == 1 else row
        raise InputError(f'{file}: {kind} id {record["id"]!r} has {what} {found!r}; write {length} number(s) in px')
    return np.array(rows, dtype=np.float64).reshape(len(rows), length)


def _is_numbers(row: Any, length: int) -> bool:
    return isinstance(row, (list, tuple)) and len(row) == length and set(map(type, row)) <= {int, float}

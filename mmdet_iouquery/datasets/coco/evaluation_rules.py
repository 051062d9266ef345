"""What COCO's evaluation, which comes hours later, asks of a file over and above training."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .arrays import CocoArrays, coco_arrays
from .class_list import check_classes_exist, check_label_order
from .json_file import CocoFile, read_coco
from .loading_rules import check_encoding


@dataclass(frozen=True)
class GroundTruth:
    """A file as ``CocoMetric`` reads it.

    Attributes:
        path: the JSON.
        categories: its categories as (id, name), in its order.
        image_ids: ids of its images.
        arrays: its annotations.
        fault: why the evaluation would stop at it; None: it would not.
    """

    path: Path
    categories: tuple[tuple[Any, str], ...]
    image_ids: tuple[Any, ...]
    arrays: CocoArrays
    fault: str | None


def read_ground_truth(path: str) -> GroundTruth:
    """Read and check a file of which only an evaluator knows.

    Raises:
        InputError: what :func:`check_encoding`, :func:`read_coco` and :func:`coco_arrays` raise.
    """
    check_encoding(Path(path))
    coco = read_coco(path)
    return ground_truth(coco, coco_arrays(coco))


def ground_truth(coco: CocoFile, arrays: CocoArrays) -> GroundTruth:
    """What there is to know of a file that was read."""
    return GroundTruth(
        path=coco.path,
        categories=tuple((category['id'], category['name']) for category in coco.categories),
        image_ids=tuple(image['id'] for image in coco.images),
        arrays=arrays,
        fault=next(_faults(coco), None),
    )


def _faults(coco: CocoFile) -> Iterator[str]:
    lacking = sum('iscrowd' not in annotation for annotation in coco.annotations)
    if lacking:
        yield (
            f"{lacking} annotations of {coco.path} lack 'iscrowd', at which COCO's evaluation stops with a KeyError; "
            'add iscrowd=0 to each'
        )
    words = [entry['id'] for entry in coco.annotations if isinstance(entry['id'], str)]
    if words:
        yield (
            f"{len(words)} annotations of {coco.path} have an id that is no number, at which COCO's evaluation stops; "
            f'number them from 1 (found: {words[0]!r})'
        )


def check_evaluable(
    truth: GroundTruth, classes: Sequence[str], image_ids: Collection[Any], *, sort_categories: bool = False
) -> None:
    """Refuse a file that the evaluation would stop at, or under which detections would get other names.

    Args:
        truth: the evaluator's file.
        classes: the class list.
        image_ids: images that are detected on.
        sort_categories: as in ``CocoMetric``.

    Raises:
        InputError: see above.
    """
    if truth.fault:
        raise InputError(truth.fault)
    order = [name for _, name in (sorted(truth.categories) if sort_categories else truth.categories)]
    check_classes_exist(truth.path, order, classes)
    check_label_order(truth.path, [name for name in order if name in classes], classes)
    own = set(truth.image_ids)
    unknown = [image_id for image_id in image_ids if image_id not in own]
    if unknown:
        raise InputError(
            f"{truth.path}, the evaluator's file, lacks {len(unknown)} of {len(image_ids)} images of the set, such as "
            f"id {unknown[0]!r}, at which COCO's evaluation stops; evaluate with the set's own file"
        )


def unseen_warning(truth: GroundTruth, classes: Sequence[str], image_ids: Collection[Any]) -> str | None:
    """A sentence on boxes of images that are never detected on, where there are any."""
    wanted = np.array([name in classes for _, name in truth.categories], dtype=bool)
    counted = wanted[truth.arrays.category_rows] & ~truth.arrays.crowd
    detected_on = set(image_ids)
    unseen = np.array([image_id not in detected_on for image_id in truth.image_ids], dtype=bool)
    rows = truth.arrays.image_rows[counted & unseen[truth.arrays.image_rows]]
    if not len(rows):
        return None
    return (
        f'{len(np.unique(rows))} images of {truth.path} with {len(rows)} boxes are not in the evaluated set '
        "(filter_cfg without test_mode=True, or indices); COCO's evaluation counts their boxes as missed"
    )

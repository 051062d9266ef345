"""What one COCO-style set holds and what is wrong with it, found before training starts."""

from __future__ import annotations

import difflib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from .coco_arrays import CocoArrays, coco_arrays
from .coco_json import CocoFile, read_coco

_SHOWN = 5  # names or ids that a message lists
_BORDER_TOLERANCE = 2.0  # px that a box may reach over its image's border without a word


@dataclass(frozen=True)
class CocoReport:
    """Counts of one set. "Usable" boxes are those that CocoDataset keeps for the class list, crowd included.

    Attributes:
        ann_file: The JSON.
        where: What asked for the set, e.g. ``train_dataloader.dataset``.
        images: Images in the JSON.
        images_used: Those left after ``filter_empty`` and ``min_size``.
        images_without_boxes: Those without a usable box.
        annotations: Annotations in the JSON.
        class_counts: Usable boxes of each class, in the order of the class list.
        crowd: Usable boxes marked ``iscrowd``.
        degenerate: Annotations whose box CocoDataset drops: a side under 1 px, NaN, no area, outside the image.
        ignored: Annotations that carry ``ignore``, which CocoDataset drops too.
        beyond_border: Boxes kept though they reach over the image's border by more than 2 px.
        dropped: Annotations of the file's categories that the class list leaves out, by name.
        without_iscrowd: Annotations that lack ``iscrowd``; COCO's evaluation stops at the first.
        warnings: One sentence each.
    """

    ann_file: Path
    where: str
    images: int
    images_used: int
    images_without_boxes: int
    annotations: int
    class_counts: dict[str, int]
    crowd: int
    degenerate: int
    ignored: int
    beyond_border: int
    dropped: dict[str, int]
    without_iscrowd: int
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f'{self.where}: {self.ann_file}',
            f'  {self.images} images ({self.images_used} used, {self.images_without_boxes} without boxes)',
            f'  {self.annotations} annotations ({self.crowd} crowd, {self.degenerate} degenerate)',
            '  boxes per class: ' + ', '.join(f'{name} {count}' for name, count in self.class_counts.items()),
        ]
        return '\n'.join(lines + [f'  warning: {warning}' for warning in self.warnings])


@dataclass(frozen=True)
class CheckedSet:
    """A set that passed, for whoever looks further.

    Attributes:
        report: What was counted.
        remarks: Its warnings that are not about single boxes.
        arrays: Its annotations, one row each.
        annotation_ids: Their ids.
        wanted: (A,) bool, annotations of the class list's categories.
        file_names: Of the images, as the JSON has them.
        image_dir: The folder that they are relative to; None where it is remote.
        categories: The file's categories.
    """

    report: CocoReport
    remarks: tuple[str, ...]
    arrays: CocoArrays
    annotation_ids: tuple[object, ...]
    wanted: np.ndarray
    file_names: tuple[str, ...]
    image_dir: Path | None
    categories: tuple[str, ...]


def check_coco(
    ann_file: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None,
    classes: Sequence[str],
    *,
    filter_empty: bool = False,
    min_size: int = 0,
    need_boxes: bool = True,
    where: str = 'check_coco',
) -> CocoReport:
    """Check one set against the class list that it is to be read with.

    Args:
        ann_file: The JSON.
        image_dir: Folder that the file names are relative to; None leaves the image files unchecked.
        classes: The names that are to be learnt or tested.
        filter_empty: Whether images without an annotation of the classes are left out (``filter_empty_gt``).
        min_size: Images whose shorter side in px is smaller are left out.
        need_boxes: False for a test set, whose boxes are unknown.
        where: What asks for the set; for the report.

    Raises:
        InputError: The JSON is missing, broken or not COCO; ids or numbers are wrong; a class isn't in the file, or the
            list isn't in the file's order; image files are missing; no image or no usable box is left.
    """
    return read_checked(
        ann_file,
        image_dir,
        classes,
        filter_empty=filter_empty,
        min_size=min_size,
        need_boxes=need_boxes,
        where=where,
    ).report


def read_checked(
    ann_file: str | os.PathLike[str],
    image_dir: str | os.PathLike[str] | None,
    classes: Sequence[str],
    *,
    filter_empty: bool,
    min_size: int,
    need_boxes: bool,
    where: str,
) -> CheckedSet:
    """As :func:`check_coco`, with what was read."""
    names = check_class_list(classes)
    coco = read_coco(ann_file, need_annotations=need_boxes)
    arrays = coco_arrays(coco)
    _check_classes_exist(coco, names)
    check_label_order(coco, names)
    if image_dir is not None:
        _check_files_exist(coco, Path(image_dir))
    report = _count(coco, arrays, names, filter_empty, min_size, where)
    if need_boxes and not any(report.class_counts.values()):
        raise InputError(
            f'{coco.path}: none of its {report.annotations} annotations is a usable box of the class list '
            f'({report.degenerate} degenerate, {sum(report.dropped.values())} of other categories); such a set can '
            'neither train nor test a model'
        )
    if not report.images_used:
        raise InputError(
            f'{coco.path}: filter_cfg (filter_empty_gt={filter_empty}, min_size={min_size}) leaves none of its '
            f"{report.images} images; lower min_size or correct the images' width and height"
        )
    remarks = tuple(_set_warnings(coco, report, need_boxes))
    return CheckedSet(
        report=replace(report, warnings=(*_box_warnings(coco, arrays, report), *remarks)),
        remarks=remarks,
        arrays=arrays,
        annotation_ids=tuple(annotation['id'] for annotation in coco.annotations),
        wanted=_wanted(coco, arrays, names),
        file_names=tuple(str(image['file_name']) for image in coco.images),
        image_dir=None if image_dir is None else Path(image_dir),
        categories=coco.classes,
    )


def check_class_list(classes: Sequence[str]) -> tuple[str, ...]:
    """The class list as a tuple.

    Raises:
        InputError: It is a bare string (whose letters would become classes), empty, not of strings, or repeats a name.
    """
    if isinstance(classes, str):
        raise InputError(
            f'classes={classes!r} is a string, whose {len(classes)} letters would be taken for classes; a tuple of one '
            f'needs a comma: classes=({classes!r},)'
        )
    names = tuple(classes)
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"classes={names!r} must be one or more names, e.g. classes=('person', 'car')")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f'classes has {name!r} {count} times; name each class once')
    return names


def _check_classes_exist(coco: CocoFile, names: tuple[str, ...]) -> None:
    own = set(coco.classes)
    absent = [name for name in names if name not in own]
    if not absent:
        return
    by_lower = {name.lower().strip(): name for name in coco.classes}
    close = difflib.get_close_matches(absent[0].lower().strip(), by_lower, n=1)
    hint = f'; did you mean {by_lower[close[0]]!r}?' if close else '.'
    raise InputError(
        f'{coco.path} lacks {len(absent)} of the {len(names)} classes asked for: {_listed(absent)}{hint} '
        f'It has {_listed(coco.classes, 20)}; name those in metainfo=dict(classes=(...))'
    )


def check_label_order(coco: CocoFile, names: Sequence[str]) -> None:
    """Raise InputError where the class list is not in the file's order, by which CocoDataset and CocoMetric count."""
    order = tuple(name for name in coco.classes if name in names)
    if order != tuple(names):
        raise InputError(
            f'the class list is not in the order of {coco.path}, by which CocoDataset and CocoMetric number labels: '
            f'detections would get wrong names, without a word; write classes=({_listed(order, len(order))}) for every '
            "set, or bring the file's categories into the order of the list"
        )


def _listed(names: Sequence[object], shown: int = _SHOWN) -> str:
    return ', '.join(map(repr, names[:shown])) + (', ...' if len(names) > shown else '')


def _check_files_exist(coco: CocoFile, image_dir: Path) -> None:
    """Raise for missing image files; each folder is listed once, which is far faster than asking for every file."""
    if not image_dir.is_dir():
        raise InputError(f"{coco.path}: its image folder {image_dir} doesn't exist; correct data_prefix=dict(img=...)")
    by_folder: dict[str, list[str]] = defaultdict(list)
    for image in coco.images:
        folder, name = os.path.split(str(image['file_name']))
        by_folder[folder].append(name)
    missing = [
        os.path.join(folder, name)
        for folder, names in by_folder.items()
        for name in _absent(os.path.join(image_dir, folder), names)
    ]
    if missing:
        raise InputError(
            f'{coco.path}: {len(missing)} of {len(coco.images)} image files are not in {image_dir}: '
            f'{_listed(missing)}; correct the image folder or the file names'
        )


def _absent(folder: str, names: list[str]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            there = {entry.name for entry in entries}
    except OSError:
        there = set()
    return [name for name in names if name not in there]


def _count(
    coco: CocoFile, arrays: CocoArrays, names: tuple[str, ...], filter_empty: bool, min_size: int, where: str
) -> CocoReport:
    categories, images = len(coco.categories), len(coco.images)
    degenerate = arrays.degenerate()
    wanted = _wanted(coco, arrays, names)
    usable = wanted & ~degenerate & ~arrays.ignored
    counts = dict(zip(coco.classes, np.bincount(arrays.category_rows[usable], minlength=categories).tolist()))
    others = np.bincount(arrays.category_rows[~wanted], minlength=categories).tolist()
    used = arrays.image_sizes.min(axis=1) >= min_size
    if filter_empty:  # as CocoDataset does: an image whose only boxes are degenerate counts as filled
        used &= np.bincount(arrays.image_rows[wanted], minlength=images) > 0
    return CocoReport(
        ann_file=coco.path,
        where=where,
        images=images,
        images_used=int(used.sum()),
        images_without_boxes=images - int(np.unique(arrays.image_rows[usable]).size),
        annotations=len(coco.annotations),
        class_counts={name: counts[name] for name in names},
        crowd=int((arrays.crowd & usable).sum()),
        degenerate=int(degenerate.sum()),
        ignored=int(arrays.ignored.sum()),
        beyond_border=int((usable & arrays.beyond_border(_BORDER_TOLERANCE)).sum()),
        dropped={name: count for name, count in zip(coco.classes, others) if name not in names},
        without_iscrowd=sum('iscrowd' not in annotation for annotation in coco.annotations),
    )


def _wanted(coco: CocoFile, arrays: CocoArrays, names: Sequence[str]) -> np.ndarray:
    """(A,) bool: annotations of the class list's categories."""
    return np.array([name in names for name in coco.classes], dtype=bool)[arrays.category_rows]


def _box_warnings(coco: CocoFile, arrays: CocoArrays, report: CocoReport) -> Iterator[str]:
    if report.degenerate:
        ids = [coco.annotations[row]['id'] for row in np.flatnonzero(arrays.degenerate())]
        yield (
            f'{report.degenerate} degenerate boxes (a side under 1 px, NaN, no area, or outside the image), annotation '
            f"ids {_listed(ids)}: training drops them, COCO's evaluation counts them as missed"
        )
    if report.ignored:
        yield f'{report.ignored} annotations are marked ignore; training drops them'
    if report.beyond_border:
        yield f'{report.beyond_border} boxes reach over the border of their image; they are kept'


def _set_warnings(coco: CocoFile, report: CocoReport, need_boxes: bool) -> Iterator[str]:
    if report.dropped:
        total = sum(report.dropped.values())
        listed = ', '.join(f'{name!r} {count}' for name, count in list(report.dropped.items())[:_SHOWN])
        yield (
            f'{len(report.dropped)} categories of the file are not in the class list; their {total} annotations are '
            f'dropped ({listed}{", ..." if len(report.dropped) > _SHOWN else ""})'
        )
    without = [name for name, count in report.class_counts.items() if not count]
    if without and need_boxes:
        yield f'{len(without)} of {len(report.class_counts)} classes have no box: {_listed(without)}'
    if need_boxes and any(annotation['id'] == 0 for annotation in coco.annotations):
        yield (
            "an annotation has the id 0, which COCO's evaluation takes for 'none': its box counts as missed, however "
            'well it is found; number annotations from 1'
        )
    if report.without_iscrowd:
        yield f"{report.without_iscrowd} annotations lack 'iscrowd', which COCO's evaluation needs; add iscrowd=0"

"""What one COCO-style set holds and what is wrong with it, found before training starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .arrays import CocoArrays
from .class_list import check_class_list, check_classes_exist, check_label_order, listed
from .evaluation_rules import GroundTruth, ground_truth
from .image_paths import check_files_exist
from .json_file import CocoFile
from .loading_rules import LoadedSet, load_set

_MOST = 0.5  # of the boxes: a mistake that more of them share is in how the file was written
_REMEDIES = {
    'an area of 0 or less': 'without masks, write area = width * height',
    'a side under 1 px': 'write px, as bbox = [x, y, width, height]',
    'NaN in bbox': 'write numbers',
    'no part inside the image': "correct the boxes, or the image's width and height",
}


@dataclass(frozen=True)
class CocoReport:
    """Counts of one set. A target is a box that training learns: CocoDataset keeps it, and it is no crowd.

    Attributes:
        ann_file: the JSON.
        where: what asked for the set, e.g. ``train_dataloader.dataset``.
        images: images in the JSON.
        images_used: those that the data set class hands on, after ``filter_cfg`` and ``indices``.
        images_without_boxes: images in the JSON without a target.
        annotations: annotations in the JSON.
        class_counts: targets of each class that the data set class hands on, in the order of the class list.
        crowd: boxes marked ``iscrowd`` that are otherwise usable.
        degenerate: annotations whose box CocoDataset drops: a side under 1 px, NaN, no area, outside the image.
        ignored: annotations that carry ``ignore``, which CocoDataset drops too.
        beyond_border: boxes kept though they reach over the image's border by more than 2 px.
        dropped: annotations of the file's categories that the class list leaves out, by name.
        without_iscrowd: annotations that lack ``iscrowd``; COCO's evaluation stops at the first.
        warnings: one sentence each.
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
        report: what was counted.
        remarks: its warnings that are not about single boxes.
        arrays: its annotations, one row each.
        annotation_ids: their ids.
        wanted: (A,) bool, annotations of the class list's categories.
        file_names: of the images, as the JSON has them.
        image_dir: the folder that they are relative to; None where it is remote.
        image_rows: of the images that are used, as places in ``file_names``.
        image_ids: theirs.
        truth: the file as an evaluator reads it.
    """

    report: CocoReport
    remarks: tuple[str, ...]
    arrays: CocoArrays
    annotation_ids: tuple[object, ...]
    wanted: NDArray[Any]
    file_names: tuple[str, ...]
    image_dir: Path | None
    image_rows: NDArray[Any]
    image_ids: tuple[object, ...]
    truth: GroundTruth

    def warned(self, *remarks: str) -> CheckedSet:
        """The same with more remarks."""
        report = replace(self.report, warnings=self.report.warnings + remarks)
        return replace(self, report=report, remarks=self.remarks + remarks)


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
    """Check one set against the class list that it is to be read with, as mmdet's ``CocoDataset`` reads it.

    Args:
        ann_file: the JSON.
        image_dir: folder that the file names are relative to; None leaves the image files unchecked.
        classes: the names that are to be learnt or tested.
        filter_empty: whether images without an annotation of the classes are left out (``filter_empty_gt``).
        min_size: images whose shorter side in px is smaller are left out.
        need_boxes: False for a test set, whose boxes are unknown.
        where: what asks for the set; for the report.

    Raises:
        InputError: the JSON is missing, broken or not COCO; ids, names, flags or numbers are wrong; a class isn't in
            the file, or the list isn't in the file's order; image files are missing; most boxes share a mistake; no
            image or no target is left.
    """
    from mmdet.datasets import CocoDataset

    names = check_class_list(classes)
    dataset = CocoDataset(
        ann_file=os.fspath(ann_file),
        data_prefix={'img': '' if image_dir is None else os.fspath(image_dir)},
        metainfo={'classes': names},
        filter_cfg={'filter_empty_gt': filter_empty, 'min_size': min_size},
        pipeline=[],
        serialize_data=False,
        lazy_init=True,
    )
    checked = read_checked(dataset, names, image_dir, need_boxes=need_boxes, where=where)
    assert checked is not None  # CocoDataset reads through its API
    return checked.report


def read_checked(
    dataset: Any, names: tuple[str, ...], image_dir: str | os.PathLike[str] | None, *, need_boxes: bool, where: str
) -> CheckedSet | None:
    """Load a set, built without its annotations, and check it; None where its class reads the file in its own way.

    Raises:
        InputError: as :func:`check_coco`.
    """
    folder = None if image_dir is None else Path(image_dir)
    loaded = load_set(dataset, need_annotations=need_boxes, check_content=partial(_check_content, names, folder))
    if loaded is None:
        return None
    coco, arrays = loaded.coco, loaded.arrays
    wanted = np.array([name in names for name in coco.classes], dtype=bool)[arrays.category_rows]
    if loaded.label_names is not None:
        check_label_order(coco.path, loaded.label_names, names)
    if need_boxes:
        _check_boxes(coco, arrays, wanted)
    report = _count(loaded, wanted, names, where)
    if not report.images_used or (need_boxes and not loaded.counts.any()):
        content = 'images with a target' if report.images_used else f'{report.images} images'
        raise InputError(
            f'{coco.path}: filter_cfg={dataset.filter_cfg} (and indices, if set) leave none of its {content}; lower '
            "min_size or correct the images' width and height"
        )
    remarks = (*_mismatch(loaded, wanted, type(dataset).__name__), *_set_warnings(coco, report, need_boxes))
    return CheckedSet(
        report=replace(report, warnings=(*_box_warnings(coco, arrays, report), *remarks)),
        remarks=remarks,
        arrays=arrays,
        annotation_ids=tuple(annotation['id'] for annotation in coco.annotations),
        wanted=wanted,
        file_names=tuple(image['file_name'] for image in coco.images),
        image_dir=folder,
        image_rows=loaded.image_rows,
        image_ids=tuple(coco.images[row]['id'] for row in loaded.image_rows.tolist()),
        truth=ground_truth(coco, arrays),
    )


def _check_content(names: tuple[str, ...], image_dir: Path | None, coco: CocoFile) -> None:
    check_classes_exist(coco.path, coco.classes, names)
    if image_dir is not None:
        check_files_exist(coco.path, [image['file_name'] for image in coco.images], image_dir)


def targets(arrays: CocoArrays, wanted: NDArray[Any]) -> NDArray[Any]:
    """(A,) bool: what CocoDataset hands on to be learnt."""
    return np.asarray(wanted & ~arrays.degenerate() & ~arrays.ignored & ~arrays.crowd)


def _check_boxes(coco: CocoFile, arrays: CocoArrays, wanted: NDArray[Any]) -> None:
    """Raise InputError where there is no target, or a mistake in how the file was written is shared by most boxes."""
    objects = wanted & ~arrays.ignored & ~arrays.crowd
    total = int(objects.sum())

    def most(faulty: NDArray[Any]) -> bool:
        return bool((faulty & objects).sum() > _MOST * total)

    def refuse(faulty: NDArray[Any], problem: str) -> None:
        count, example = int((faulty & objects).sum()), coco.annotations[int(np.flatnonzero(faulty & objects)[0])]
        shown = f'id {example["id"]!r}: bbox {example["bbox"]}, area {example["area"]}'
        raise InputError(f'{coco.path}: {count} of its {total} boxes {problem} ({shown})')

    over = arrays.beyond_border()
    if most(arrays.relative()):
        refuse(arrays.relative(), 'lie between 0 and 1, relative to the size of the image: write px')
    if most(over) and (arrays.inside_as_corners() | ~over)[objects].all():
        problem = (
            'reach over the border of their image; read as corners, all of them lie inside: are these x1, y1, x2, y2?'
        )
        refuse(over, f'{problem} COCO has bbox = [x, y, width, height]')
    for reason, degenerate in arrays.degenerate_by_reason().items():
        if most(degenerate):
            refuse(degenerate, f'have {reason}, so that CocoDataset drops them; {_REMEDIES[reason]}')
    if not targets(arrays, wanted).any():
        raise InputError(
            f'{coco.path}: none of its {len(wanted)} annotations is a target ({_lost(arrays, wanted)}); correct them, '
            'or the class list: such a set can neither train nor test a model'
        )


def _lost(arrays: CocoArrays, wanted: NDArray[Any]) -> str:
    """Why annotations are no targets, each counted once."""
    reasons = {
        'of categories outside the class list': ~wanted,
        'marked ignore; write ignore=0 for what is to be found': wanted & arrays.ignored,
        'marked iscrowd; write iscrowd=0 for single objects': wanted & ~arrays.ignored & arrays.crowd,
    }
    objects = wanted & ~arrays.ignored & ~arrays.crowd
    reasons |= {f'with {reason}': degenerate & objects for reason, degenerate in arrays.degenerate_by_reason().items()}
    return (
        ', '.join(f'{left_out.sum()} {reason}' for reason, left_out in reasons.items() if left_out.any())
        or 'there are none'
    )


def _mismatch(loaded: LoadedSet, wanted: NDArray[Any], kind: str) -> Iterator[str]:
    """Targets of the data set class against those of the file; InputError where CocoDataset's own rules make others."""
    coco, arrays = loaded.coco, loaded.arrays
    rows = arrays.image_rows[targets(arrays, wanted)]
    expected = np.bincount(rows, minlength=len(coco.images))[loaded.image_rows]
    differing = np.flatnonzero(expected != loaded.counts)
    if not len(differing):
        return
    first = differing[0]
    text = (
        f'{kind} makes {loaded.counts.sum()} targets of {coco.path}, which holds {expected.sum()} by the rules of '
        f'CocoDataset; the first image that differs has id {coco.images[loaded.image_rows[first]]["id"]!r} '
        f'({loaded.counts[first]}, not {expected[first]})'
    )
    if not loaded.own_rules:
        raise InputError(f'{text}; this mmdet reads annotations otherwise than the check knows: use --no-check')
    yield text


def _count(loaded: LoadedSet, wanted: NDArray[Any], names: tuple[str, ...], where: str) -> CocoReport:
    coco, arrays = loaded.coco, loaded.arrays
    usable = wanted & ~arrays.degenerate() & ~arrays.ignored
    others = np.bincount(arrays.category_rows[~wanted], minlength=len(coco.categories)).tolist()
    filled = np.unique(arrays.image_rows[usable & ~arrays.crowd])
    return CocoReport(
        ann_file=coco.path,
        where=where,
        images=len(coco.images),
        images_used=len(loaded.image_rows),
        images_without_boxes=len(coco.images) - len(filled),
        annotations=len(coco.annotations),
        class_counts=dict(zip(names, np.bincount(loaded.labels, minlength=len(names)).tolist())),
        crowd=int((arrays.crowd & usable).sum()),
        degenerate=int(arrays.degenerate().sum()),
        ignored=int(arrays.ignored.sum()),
        beyond_border=int((usable & arrays.beyond_border()).sum()),
        dropped={name: count for name, count in zip(coco.classes, others) if name not in names},
        without_iscrowd=sum('iscrowd' not in annotation for annotation in coco.annotations),
    )


def _box_warnings(coco: CocoFile, arrays: CocoArrays, report: CocoReport) -> Iterator[str]:
    missed = "training drops them, COCO's evaluation counts them as missed"
    if report.degenerate:
        ids = [coco.annotations[row]['id'] for row in np.flatnonzero(arrays.degenerate())]
        reasons = arrays.degenerate_by_reason().items()
        why = ', '.join(f'{degenerate.sum()} with {reason}' for reason, degenerate in reasons if degenerate.any())
        yield f'{report.degenerate} degenerate boxes ({why}), annotation ids {listed(ids)}: {missed}'
    if report.ignored:
        yield f'{report.ignored} annotations are marked ignore: {missed}; write iscrowd=1 for what is not to count'
    if report.beyond_border:
        are_corners = bool(arrays.inside_as_corners()[arrays.beyond_border()].all())
        question = '; read as corners, all of them lie inside: are these x1, y1, x2, y2?' if are_corners else ''
        if report.beyond_border == 1:
            yield f'1 box reaches over the border of its image; it is kept{question}'
        else:
            yield f'{report.beyond_border} boxes reach over the border of their image; they are kept{question}'


def _set_warnings(coco: CocoFile, report: CocoReport, need_boxes: bool) -> Iterator[str]:
    if report.dropped:
        total = sum(report.dropped.values())
        names = ', '.join(f'{name!r} {count}' for name, count in list(report.dropped.items())[:5])
        yield (
            f'{len(report.dropped)} categories of the file are not in the class list; their {total} annotations are '
            f'dropped ({names}{", ..." if len(report.dropped) > 5 else ""})'
        )
    without = [name for name, count in report.class_counts.items() if not count]
    if without and need_boxes:
        yield f'{len(without)} of {len(report.class_counts)} classes have no box: {listed(without)}'
    if need_boxes and any(annotation['id'] == 0 for annotation in coco.annotations):
        yield (
            "an annotation has the id 0, which COCO's evaluation takes for 'none': its box counts as missed, however "
            'well it is found; number annotations from 1'
        )
    if report.without_iscrowd:
        yield f"{report.without_iscrowd} annotations lack 'iscrowd', which COCO's evaluation needs; add iscrowd=0"

"""A set in any form that is known, as COCO: :func:`read_data`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...datasets.coco.report import CocoReport, check_coco
from ...errors import InputError
from ...file_io import checksum, text_checksum
from .archive import unpacked
from .arguments import given_path
from .coco_files import (
    NOTE,
    OUT_OPTION,
    check_ours,
    check_source,
    earlier_splits,
    is_whole,
    read_note,
    texts_of,
    write_note,
    write_set,
)
from .coco_masks import lacks_boxes, read_coco_masks
from .coco_set import Check, CocoSet, find_coco_set, role_of
from .folder import Folder, fingerprint
from .known_forms import Form, form_of_file, form_of_folder
from .reading import Reading, check_reading
from .report import describe, report_of
from .split import splits_of

_RULES = 2  # raised whenever the same input is read otherwise


@dataclass(frozen=True)
class Data:
    """A set, and what was understood of it: empty for COCO, which is taken as it is but for what the remarks say."""

    coco: CocoSet
    report: dict[str, Any]
    remarks: tuple[str, ...] = ()


def read_data(
    path: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    option: str = OUT_OPTION,
    seed: int = 0,
    check: Check | None = None,
) -> CocoSet:
    """Find a set, and write it in COCO's form where it is in another one; what was understood is printed.

    Forms: COCO in the arrangements of :func:`~mmdet_iouquery.find_coco_set`, YOLO, Pascal VOC, a CSV of boxes,
    exports of Label Studio and of CVAT, COCO with masks but no boxes, and a zip of any of these. Images stay where they
    are. A second call on the same input writes nothing.

    Args:
        path: a folder; or a zip, data.yaml, a CSV, an export, a COCO JSON.
        out: folder for ``train.json``, ``val.json`` (and ``test.json``); by default ``PATH-coco`` beside ``path``.
            Files there that were not written here are left alone.
        option: what a person names another ``out`` with, for messages.
        seed: of the draw of validation images, where the set has none. A single COCO JSON is split by its images' ids.
            Images that an earlier call drew with the same seed keep their split.
        check: is called with the checksums of the annotation files of training and validation, by their paths, before
            any is written, and may raise.

    Raises:
        InputError: nothing, or more than one set is found; labels or images are unfit, or what comes out does not pass
            :func:`~mmdet_iouquery.datasets.check_coco`; the folder holds what was made of another set, or cannot be
            written. What was looked for and what was found is in the message.
    """
    return find_data(path, out=out, option=option, seed=seed, check=check).coco


def find_data(
    path: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    option: str = OUT_OPTION,
    seed: int = 0,
    check: Check | None = None,
) -> Data:
    """As :func:`read_data`, with what was understood."""
    data = _find_data(path, out, option, seed, check)
    if check is not None:  # nothing may have been written, so that it was not called
        check({str(path): checksum(path) for path in (data.coco.train_ann, data.coco.val_ann)}, None)
    return data


def _find_data(
    path: str | os.PathLike[str], out: str | os.PathLike[str] | None, option: str, seed: int, check: Check | None
) -> Data:
    given = given_path(path)
    if (given / NOTE).is_file():
        return _made_before(given)
    is_zip = given.is_file() and given.suffix.lower() == '.zip'
    base = _base(given, is_zip)
    target = base.with_name(f'{base.name}-coco') if out is None else Path(os.path.abspath(Path(out).expanduser()))
    if target == base:
        raise InputError(f'--out {target} is the set itself, which is not written over; name another folder')
    request = {'rules': _RULES, 'source': str(given), 'seed': seed}
    root = unpacked(given) if is_zip else base
    note = read_note(target)
    if note.get('checked') and note.get('request') == request and _unchanged(note, target):
        print(f'{target} holds {given} as COCO already; nothing to do')
        return _from_note(note)
    check_source(target, note, given, option)
    if not note:
        _check_no_set(target, option)
    folder = Folder(root, without=target)
    form = form_of_file(given, folder) if given.is_file() and not is_zip else form_of_folder(folder)
    if form.read is None:
        if out is None:  # into a folder that somebody has named, a split has always been written over
            check_ours(target, note, option)
        earlier = earlier_splits(target, note, seed)
        read = _coco(root if is_zip else given, folder, form, target, earlier, check)
        if isinstance(read, CocoSet):
            if read.train_ann.parent == target:
                files = {path.name: checksum(path) for path in (read.train_ann, read.val_ann)}
                write_note(target, {**_content(request, read, [root], target, {}), 'files': files, 'checked': True})
            return Data(read, {}, _remarks(read, folder, form, None if out is None else target))
        reading = read
    else:
        reading = form.read()
    return _converted(reading, folder, target, note, request, option, check)


def _check_no_set(target: Path, option: str) -> None:
    """Raise InputError where a folder without a note holds a set: its name would mean another one then.

    Files of the names that are written here are none: a split without a note may be of a call that was stopped.
    """
    try:
        form = form_of_folder(Folder(target)) if target.is_dir() else None
    except InputError:  # whatever there is
        return
    written = {target / f'{split}.json' for split in ('train', 'val', 'test')}
    if form is None or written.issuperset(form.shown_by):
        return
    if form.name in ('COCO', 'YOLO', 'Pascal VOC'):  # others are a single file among any
        raise InputError(f'{target} holds a set itself, in the form of {form.name}; name another folder with {option}')


def _base(given: Path, is_zip: bool) -> Path:
    """The set's folder, beside which the result is written; of a zip, the name without its ending."""
    if is_zip:
        return given.with_suffix('')
    if given.is_dir():
        return given
    return given.parent.parent if given.parent.name == 'annotations' else given.parent


def check_splits(splits: dict[str, tuple[Path, Path]], classes: Sequence[str]) -> list[CocoReport]:
    """The usual check of each split: its annotation file and the folder of its images.

    Raises:
        InputError: as :func:`~mmdet_iouquery.datasets.check_coco`.
    """
    return [
        check_coco(ann_file, images, classes, need_boxes=split != 'test', where=split)
        for split, (ann_file, images) in splits.items()
    ]


def _coco(
    named: Path, folder: Folder, form: Form, target: Path, earlier: Mapping[Path, str], check: Check | None
) -> CocoSet | Reading:
    """A COCO set as it is, or what is read of one whose annotations have masks alone."""
    try:
        return find_coco_set(named, split_to=target, earlier=earlier, check=check)
    except InputError:
        without = [path for path in form.shown_by if lacks_boxes(path)]
        if not without:
            raise
        return read_coco_masks(folder, form.shown_by)


def _remarks(coco: CocoSet, folder: Folder, form: Form, out: Path | None) -> tuple[str, ...]:
    """What is not done with a COCO set that is taken as it is, ``out`` being a folder that somebody has named."""
    tests = [folder.name(path) for path in form.shown_by if role_of(path, folder.root) == 'test']
    remarks = [f'a test part is there, {", ".join(tests)}; only training and validation are taken'] if tests else []
    if out is not None and out != coco.train_ann.parent:
        remarks.append(f'nothing is written to {out}: the set is COCO already')
    return tuple(remarks)


def _converted(
    reading: Reading,
    folder: Folder,
    target: Path,
    note: dict[str, Any],
    request: dict[str, Any],
    option: str,
    check: Check | None,
) -> Data:
    check_reading(reading)
    earlier = earlier_splits(target, note, request['seed'])
    splits, drawn = splits_of(reading.images, reading.account, reading.source, request['seed'], earlier)
    report = report_of(reading, splits, drawn, request['seed'], target)
    check_ours(target, note, option)
    texts, folders = texts_of(splits, reading.classes)
    if check is not None:
        sums = {str(target / f'{split}.json'): text_checksum(texts[split]) for split in ('train', 'val')}
        check(sums, len(splits['train']) + len(splits['val']))
    coco = CocoSet(target / 'train.json', folders['train'], target / 'val.json', folders['val'], reading.classes)
    write_set(target, texts, _content(request, coco, _looked_at(reading, folder.root), target, report), note, option)
    print(describe(report))
    files = {split: (target / f'{split}.json', images) for split, images in folders.items()}
    checked = check_splits(files, reading.classes)
    report['warnings'] = [f'{report.where}: {warning}' for report in checked for warning in report.warnings]
    for warning in report['warnings']:
        print(f'  warning: {warning}')
    write_note(target, {**read_note(target), 'report': report, 'checked': True})
    return Data(coco, report)


def _content(
    request: dict[str, Any], coco: CocoSet, folders: Sequence[Path], target: Path, report: dict[str, Any]
) -> dict[str, Any]:
    """The note's, but for the files."""
    paths = {key: list(value) if key == 'classes' else str(value) for key, value in vars(coco).items()}
    return {'request': request, 'folders': fingerprint(folders, target), 'coco': paths, 'report': report}


def _looked_at(reading: Reading, root: Path) -> list[Path]:
    """The set's folder, and those outside it that its description leads to, labels beside images included."""
    outside = {image.path.parent for image in reading.images if not image.path.is_relative_to(root)}
    tops = set()
    for folder in outside:
        levels = [level for level, part in enumerate(folder.parts) if part.lower() == 'images']
        tops.add(Path(*folder.parts[: levels[-1]]) if levels else folder)
    return [root, *sorted(tops)]


def _unchanged(note: dict[str, Any], target: Path) -> bool:
    """Whether input and output are what they were."""
    folders = note.get('folders', {})
    if not all(Path(folder).is_dir() for folder in folders):
        return False
    return fingerprint(map(Path, folders), target) == folders and is_whole(target, note)


def _made_before(folder: Path) -> Data:
    """The set that a folder of ours holds, when the folder itself is named."""
    note = read_note(folder)
    if not note.get('checked') or not is_whole(folder, note):
        raise InputError(f'{folder} holds a set that is not as it was written; name what it was made of instead')
    print(f'{folder} was made of {note["request"]["source"]}')
    return _from_note(note)


def _from_note(note: dict[str, Any]) -> Data:
    coco = note['coco']
    paths = {key: Path(coco[key]) for key in ('train_ann', 'train_images', 'val_ann', 'val_images')}
    return Data(CocoSet(**paths, classes=tuple(coco['classes'])), note['report'])

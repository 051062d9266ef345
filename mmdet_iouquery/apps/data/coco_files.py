"""The result: COCO's JSON of each split in a folder of its own, with a note of what it was made of.

Files are written over only where the note says that they were written here and are as they were.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...file_io import checksum, text_checksum, write_text
from .reading import LabelledImage
from .split import Splits

NOTE = 'iouquery-data.json'
OUT_OPTION = 'iouquery data --out'
"""What a person names the folder with, unless a command has an option of its own for it."""
_DIGITS = 4  # of a px


def read_note(folder: Path) -> dict[str, Any]:
    """The note of an earlier call; empty where there is none that can be read."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and isinstance(note.get('files'), dict) else {}


def is_whole(folder: Path, note: Mapping[str, Any]) -> bool:
    """Whether every file of a note is there, as it was written."""
    return all((folder / name).is_file() and checksum(folder / name) == sum_ for name, sum_ in note['files'].items())


def check_ours(folder: Path, note: Mapping[str, Any], option: str) -> None:
    """Raise InputError where a file that is to be written is there and was not written here, or was changed since."""
    written, replaced = note.get('files', {}), note.get('replaced', {})
    for name in ('train.json', 'val.json', 'test.json'):
        path = folder / name
        if path.exists() and not (path.is_file() and checksum(path) in (written.get(name), replaced.get(name))):
            why = 'was changed since it was written here' if name in written else 'was not written here'
            raise InputError(
                f'{path} {why}, and is not written over; move it away, or name another folder with {option}'
            )


def earlier_splits(folder: Path, note: Mapping[str, Any], seed: int) -> dict[Path, str]:
    """The split of each image in the files of an earlier call that drew it with the same seed; empty: none did."""
    report = note.get('report')  # empty: a single COCO JSON was split
    if note.get('request', {}).get('seed') != seed or (report and report['drawn_with_seed'] is None):
        return {}
    splits: dict[Path, str] = {}
    for split in ('train', 'val'):
        path, name = folder / f'{split}.json', f'{split}.json'
        ours = (note['files'].get(name), note.get('replaced', {}).get(name))
        if path.is_file() and checksum(path) in ours:
            content = json.loads(path.read_text(encoding='utf-8'))
            images = Path(content['info']['image_folder'])
            splits.update({images / image['file_name']: split for image in content['images']})
    return splits


def check_source(folder: Path, note: Mapping[str, Any], source: Path, option: str) -> None:
    """Raise InputError where the folder holds what was made of another set; a file in a set's folder means that set."""
    before = note.get('request', {}).get('source')
    if before is None:
        return
    first, second = (path.with_suffix('') if path.suffix.lower() == '.zip' else path for path in (source, Path(before)))
    if not first.is_relative_to(second) and not second.is_relative_to(first):
        raise InputError(f'{folder} holds what was made of another set, {before}; name another folder with {option}')


def texts_of(splits: Splits, classes: Sequence[str]) -> tuple[dict[str, str], dict[str, Path]]:
    """The JSON of each split, and the folder of its images, which file names are relative to."""
    folders = {
        split: Path(os.path.commonpath([image.path.parent for image in images])) for split, images in splits.items()
    }
    texts = {
        split: json.dumps(_coco(images, folders[split], classes), ensure_ascii=False, separators=(',', ':'))
        for split, images in splits.items()
    }
    return texts, folders


def write_set(
    folder: Path, texts: Mapping[str, str], content: Mapping[str, Any], before: Mapping[str, Any], option: str
) -> None:
    """Write the note, then each split's file; one of an earlier call whose split is gone is removed.

    The note comes first and knows the files before and after, so that a stop at any place leaves files that are ours.

    Args:
        folder: made where it is missing.
        texts: of each split.
        content: of the note.
        before: the note of the earlier call.
        option: what a person names another folder with.

    Raises:
        InputError: the disk refuses.
    """
    sums = {f'{split}.json': text_checksum(text) for split, text in texts.items()}
    replaced = (path for path in folder.glob('*.json') if path.name in {**before.get('files', {}), **sums})
    try:
        write_note(folder, {**content, 'files': sums, 'replaced': {path.name: checksum(path) for path in replaced}})
        for split, text in texts.items():
            write_text(folder / f'{split}.json', text)
        for name in before.get('files', {}):
            if name not in sums:
                (folder / name).unlink(missing_ok=True)
        write_note(folder, {**content, 'files': sums})
    except OSError as error:
        raise InputError(
            f'cannot write to the folder {folder}: {error.strerror or error}; name another with {option}'
        ) from error


def write_note(folder: Path, note: Mapping[str, Any]) -> None:
    """Write the note."""
    write_text(folder / NOTE, json.dumps(note, indent=1, ensure_ascii=False) + '\n')


def _coco(images: Sequence[LabelledImage], folder: Path, classes: Sequence[str]) -> dict[str, Any]:
    ids = {name: category_id for category_id, name in enumerate(classes, 1)}
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for labelled in image.boxes:
            box = [round(float(value), _DIGITS) for value in labelled.box]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=ids[labelled.label],
                    bbox=box,
                    area=round(box[2] * box[3], _DIGITS),
                    iscrowd=int(labelled.crowd),
                )
            )
    return dict(
        info=dict(image_folder=str(folder)),
        images=[_record(number, image, folder) for number, image in enumerate(images, 1)],
        annotations=annotations,
        categories=[dict(id=number, name=name) for name, number in ids.items()],
    )


def _record(number: int, image: LabelledImage, folder: Path) -> dict[str, Any]:
    width, height = image.size
    return dict(id=number, file_name=image.path.relative_to(folder).as_posix(), width=width, height=height)

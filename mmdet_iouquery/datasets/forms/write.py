"""The result: COCO's JSON of each part in a folder of its own, with a note of what it was made of.

Files are written over only where the note says that they were written here and are as they were.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...file_io import checksum, write_text
from .records import LabelledImage
from .split import Parts

NOTE = 'iouquery-data.json'
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


def check_ours(folder: Path, note: Mapping[str, Any]) -> None:
    """Raise InputError where a file that is to be written is there and was not written here, or was changed since."""
    files = note.get('files', {})
    for name in ('train.json', 'val.json', 'test.json'):
        path = folder / name
        if path.exists() and not (path.is_file() and checksum(path) == files.get(name)):
            why = 'was changed since it was written here' if name in files else 'was not written here'
            raise InputError(f'{path} {why}, and is not written over; move it away, or name another folder with --out')


def write_parts(folder: Path, parts: Parts, classes: Sequence[str], before: Mapping[str, Any]) -> dict[str, Path]:
    """Write each part's file, and remove one of an earlier call whose part is gone.

    Args:
        folder: made where it is missing.
        parts: images by part.
        classes: in the order of their numbers.
        before: the note of the earlier call.

    Returns:
        The folder of each part's images, which the file names are relative to.

    Raises:
        InputError: the disk refuses.
    """
    folders = {}
    try:
        for part, images in parts.items():
            folders[part] = Path(os.path.commonpath([image.path.parent for image in images]))
            text = json.dumps(_coco(images, folders[part], classes), ensure_ascii=False, separators=(',', ':'))
            write_text(folder / f'{part}.json', text + '\n')
        for name in before.get('files', {}):
            if name.removesuffix('.json') not in parts:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f'cannot write to the folder {folder}: {error.strerror or error}; name another with --out'
        ) from error
    return folders


def write_note(folder: Path, content: Mapping[str, Any], parts: Parts) -> None:
    """Write the note; the files' checksums are added."""
    files = {f'{part}.json': checksum(folder / f'{part}.json') for part in parts}
    write_text(folder / NOTE, json.dumps({**content, 'files': files}, indent=1, ensure_ascii=False) + '\n')


def _coco(images: Sequence[LabelledImage], folder: Path, classes: Sequence[str]) -> dict[str, Any]:
    ids = {name: place for place, name in enumerate(classes, 1)}
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        for one in image.boxes:
            box = [round(float(value), _DIGITS) for value in one.box]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=ids[one.label],
                    bbox=box,
                    area=round(box[2] * box[3], _DIGITS),
                    iscrowd=int(one.crowd),
                )
            )
    return dict(
        images=[_record(number, image, folder) for number, image in enumerate(images, 1)],
        annotations=annotations,
        categories=[dict(id=number, name=name) for name, number in ids.items()],
    )


def _record(number: int, image: LabelledImage, folder: Path) -> dict[str, Any]:
    width, height = image.size
    return dict(id=number, file_name=image.path.relative_to(folder).as_posix(), width=width, height=height)

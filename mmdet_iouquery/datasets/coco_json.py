"""Reading a COCO JSON, with one clear message for each way in which the file itself can be unfit.

What its ids and boxes say is looked at in ``coco_report``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

Record = dict[str, Any]

# Keys that mmdet's CocoDataset reads of every record and stops at, with a bare KeyError, where they are missing.
IMAGE_KEYS = ('id', 'file_name', 'width', 'height')
ANNOTATION_KEYS = ('id', 'image_id', 'category_id', 'bbox', 'area')
CATEGORY_KEYS = ('id', 'name')
_HINTS = {
    'bbox': 'bbox = [x, y, width, height] in px',
    'area': 'without masks, area = width * height of the box',
    'width': "the picture's width in px",
    'height': "the picture's height in px",
}


@dataclass(frozen=True)
class CocoFile:
    """A COCO JSON whose records have the keys that training needs; their values are not looked at yet."""

    path: Path
    images: list[Record]
    annotations: list[Record]
    categories: list[Record]

    @property
    def classes(self) -> tuple[str, ...]:
        """The categories' names in the file's order, which is the order in which CocoDataset numbers its labels."""
        return tuple(str(category['name']) for category in self.categories)


def read_coco(path: str | os.PathLike[str], *, need_annotations: bool = True) -> CocoFile:
    """Read a COCO JSON and check its form.

    Args:
        path: The file.
        need_annotations: False for a test set, of which only the images and the categories are needed.

    Raises:
        InputError: The file is missing, unreadable or not JSON; it is not in COCO's form; it has no images or no
            categories; a record lacks a key.
    """
    file = Path(path)
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(
            f'{file} holds a {type(content).__name__}, not an object with images, annotations and categories'
            + ('; it may be a file of results' if isinstance(content, list) else '')
        )
    needed = ('images', 'annotations', 'categories') if need_annotations else ('images', 'categories')
    missing = [key for key in needed if key not in content]
    if missing:
        found = ', '.join(map(str, list(content)[:8])) or 'nothing'
        raise InputError(f'{file} is not a COCO detection file: it lacks {", ".join(missing)} (it has {found})')
    coco = CocoFile(file, content['images'], content.get('annotations', []), content['categories'])
    for name, records in (('images', coco.images), ('categories', coco.categories)):
        if not records:
            raise InputError(f'{file}: {name} is empty')
    _check_records(file, 'image', coco.images, IMAGE_KEYS)
    _check_records(file, 'annotation', coco.annotations, ANNOTATION_KEYS)
    _check_records(file, 'category', coco.categories, CATEGORY_KEYS)
    return coco


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        InputError: It is missing (the message lists the folder's JSON files), unreadable, or ends or breaks at a
            line and column that are named.
    """
    if not path.is_file():
        raise InputError(f'no annotation file {path}{_neighbours(path)}')
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}") from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f'line {error.lineno}, column {error.colno}'
        if error.pos >= len(text.rstrip()) or error.msg.startswith('Unterminated'):
            raise InputError(
                f'{path} ends in mid-air ({error.msg} at {place}); it was cut short: copy or download it again'
            ) from error
        raise InputError(f'{path} is not valid JSON: {error.msg} at {place}') from error


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; its folder {path.parent} doesn't exist"
    names = sorted(child.name for child in path.parent.glob('*.json'))
    more = ', ...' if len(names) > 8 else ''
    return f'; the folder has {", ".join(names[:8])}{more}' if names else '; the folder has no JSON file'


def _check_records(file: Path, kind: str, records: Any, keys: Sequence[str]) -> None:
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(f'{file}: the {kind} entries must be a list of objects')
    for key in keys:
        lacking = next((index for index, record in enumerate(records) if key not in record), None)
        if lacking is None:
            continue
        name = f'id {records[lacking]["id"]!r}' if 'id' in records[lacking] else f'number {lacking} of the list'
        hint = f' ({_HINTS[key]})' if key in _HINTS else ''
        raise InputError(f'{file}: {kind} {name} has no {key!r}; add it{hint}')

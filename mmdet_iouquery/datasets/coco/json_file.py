"""Reading a COCO JSON, with one clear message for each way in which its records can be unfit.

What its boxes are is looked at in ``coco_arrays``, what a class list makes of it in ``coco_report``.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError

Record = dict[str, Any]

# Keys that mmdet's CocoDataset reads of every record and stops at, with a bare KeyError, where they are missing.
IMAGE_KEYS = ('id', 'file_name', 'width', 'height')
ANNOTATION_KEYS = ('id', 'image_id', 'category_id', 'bbox', 'area')
CATEGORY_KEYS = ('id', 'name')
_HINTS = {
    'bbox': 'bbox = [x, y, width, height] in px',
    'area': 'without masks, area = width * height of the box',
    'width': "the image's width in px",
    'height': "the image's height in px",
}
_LARGE = 64 * 2**20
"""Bytes of a file that takes seconds to read."""
_LARGEST_ID = 2**53
"""From here on not every whole number is a float, and COCO's evaluation, which puts ids into arrays, mixes them up."""


@dataclass(frozen=True)
class CocoFile:
    """A COCO JSON whose ids, names and flags are sound; its boxes are not looked at yet.

    Every record has the keys that training needs. Ids are whole numbers or text and used once each, file names and
    category names are text, ``iscrowd`` and ``ignore`` are 0, 1, false or true where they are given.
    """

    path: Path
    images: list[Record]
    annotations: list[Record]
    categories: list[Record]

    @property
    def classes(self) -> tuple[str, ...]:
        """The categories' names in the file's order, which is the order in which CocoDataset numbers its labels."""
        return tuple(category['name'] for category in self.categories)


def read_coco(path: str | os.PathLike[str], *, need_annotations: bool = True) -> CocoFile:
    """Read a COCO JSON and check its records.

    Args:
        path: the file.
        need_annotations: False for a test set, of which only the images and the categories are needed.

    Raises:
        InputError: the file is missing, unreadable or not JSON; or what :func:`coco_file` raises.
    """
    return coco_file(Path(path), read_json(Path(path)), need_annotations=need_annotations)


def coco_file(path: Path, content: Any, *, need_annotations: bool = True) -> CocoFile:
    """The records of a file that has been parsed, checked.

    Raises:
        InputError: it is not in COCO's form; it has no images or no categories; a record lacks a key; an id, a name or
            a flag is of the wrong type; an id or a category's name is used twice.
    """
    if not isinstance(content, dict):
        raise InputError(
            f'{path} holds a {type(content).__name__}, not an object with images, annotations and categories'
            f'{", as a file of results does" if isinstance(content, list) else ""}; name an annotation file'
        )
    needed = ('images', 'annotations', 'categories') if need_annotations else ('images', 'categories')
    missing = [key for key in needed if key not in content]
    if missing:
        keys = ', '.join(map(str, list(content)[:8])) or 'nothing'
        raise InputError(
            f'{path} is not a COCO detection file: it lacks {", ".join(missing)} (it has {keys}); add what is missing, '
            'or name another file'
        )
    coco = CocoFile(path, content['images'], content.get('annotations', []), content['categories'])
    for name, records in (('images', coco.images), ('categories', coco.categories)):
        if not records:
            raise InputError(f'{path}: {name} is empty; add them, or name another file')
    _check_keys(path, 'image', coco.images, IMAGE_KEYS)
    _check_keys(path, 'annotation', coco.annotations, ANNOTATION_KEYS)
    _check_keys(path, 'category', coco.categories, CATEGORY_KEYS)
    for kind, records in (('image', coco.images), ('category', coco.categories), ('annotation', coco.annotations)):
        _check_ids(path, kind, records)
    for key in ('image_id', 'category_id'):
        _check_all(path, 'annotation', coco.annotations, key, _is_id, 'write the id of one of the file')
    advice = 'not text: mmdet would find none of its boxes; put it in quotation marks, here and in the class list'
    _check_all(path, 'category', coco.categories, 'name', _is_text, advice)
    _check_unique(path, 'category', 'name', coco.classes)
    _check_all(path, 'image', coco.images, 'file_name', _is_name, 'write the path of its file in the image folder')
    for key in ('iscrowd', 'ignore'):
        given = [annotation for annotation in coco.annotations if key in annotation]
        _check_all(path, 'annotation', given, key, _is_flag, 'write 0 or 1: mmdet takes any other text or number for 1')
    return coco


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        InputError: it is missing (the message lists the folder's JSON files), unreadable, begins with a byte order
            mark, or ends or breaks at a line and column that are named.
    """
    if not path.is_file():
        raise InputError(f'no annotation file {path}{_neighbours(path)}')
    say_if_large(path)
    text = decoded(path)
    if not text.strip():
        raise InputError(f'{path} is empty; copy or export it again')
    if text.startswith('\ufeff'):
        raise InputError(
            f'{path} begins with a byte order mark, at which the JSON reader of mmdet stops; save it as "UTF-8" '
            f'instead of "UTF-8 with BOM", or take the mark away: sed -i \'1s/^\\xEF\\xBB\\xBF//\' {path}'
        )
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        position = f'line {error.lineno}, column {error.colno}'
        if error.pos >= len(text.rstrip()) or error.msg.startswith('Unterminated'):
            raise InputError(
                f'{path} ends in mid-air ({error.msg} at {position}); it was cut short: copy or download it again'
            ) from error
        raise InputError(
            f'{path} is not valid JSON: {error.msg} at {position}; correct it there, or export it again'
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists within lists without end
        raise InputError(f'{path} is no JSON that can be read: {error}; export it again') from error


def decoded(path: Path, encoding: str = 'utf-8') -> str:
    """The text of a file.

    Args:
        path: of the file.
        encoding: 'utf-8', or 'utf-8-sig' to leave out the byte order mark that some programs begin it with.

    Raises:
        InputError: it cannot be read, or is in another encoding.
    """
    try:
        return path.read_bytes().decode(encoding)  # line ends as they are, which a CSV's fields may hold
    except UnicodeDecodeError as error:
        raise InputError(
            f'{path} cannot be read: it is not in UTF-8 ({error}); convert it, for instance with iconv -f LATIN1 -t '
            f'UTF-8 {path} > NEW_FILE (or -f UTF-16)'
        ) from error
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror or error}; check who may read it') from error


def say_if_large(path: Path) -> None:
    """Say on the error stream that a large file is being read, so that the silence meanwhile is explained."""
    if path.is_file() and (size := path.stat().st_size) >= _LARGE:
        print(f'reading {path}, {size / 1e6:.0f} MB', file=sys.stderr, flush=True)


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        root = path.parent.parent
        made = f', or make the set with `iouquery digits {root}`' if root == Path('data', 'digits') else ''
        return f'; its folder {path.parent} does not exist, correct the path{made}'
    names = sorted(child.name for child in path.parent.glob('*.json'))
    more = ', ...' if len(names) > 8 else ''
    folder = path.parent.absolute()
    return f'; the folder {folder} has {", ".join(names[:8])}{more}' if names else f'; {folder} has no JSON file'


def _check_keys(file: Path, kind: str, records: Any, keys: Sequence[str]) -> None:
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(f'{file}: the {kind} entries must be a list of objects')
    for key in keys:
        lacking = next((index for index, record in enumerate(records) if key not in record), None)
        if lacking is None:
            continue
        name = f'id {records[lacking]["id"]!r}' if 'id' in records[lacking] else f'number {lacking} of the list'
        hint = f' ({_HINTS[key]})' if key in _HINTS else ''
        raise InputError(f'{file}: {kind} {name} has no {key!r}; add it{hint}')


def _check_ids(file: Path, kind: str, records: list[Record]) -> None:
    """Ids are whole numbers or text, each used once. Of a mixture numpy, which sorts them in evaluation, makes text."""
    ids = [record['id'] for record in records]
    if not all(map(_is_id, ids)):
        index, bad = next((index, value) for index, value in enumerate(ids) if not _is_id(value))
        raise InputError(
            f'{file}: {kind} number {index} of the list has the id {_short(bad)}; write a whole number below 2^53'
        )
    texts = sum(isinstance(value, str) for value in ids)
    if kind != 'annotation' and 0 < texts < len(ids):
        text, number = (next(value for value in ids if isinstance(value, str) is wanted) for wanted in (True, False))
        raise InputError(
            f'{file}: {texts} of {len(ids)} {kind} ids are text, the others numbers (such as {text!r} and {number!r}); '
            'write all as numbers'
        )
    _check_unique(file, kind, 'id', ids)


def _check_unique(file: Path, kind: str, field: str, values: Sequence[Any]) -> None:
    if len(set(values)) == len(values):
        return
    value, count = Counter(values).most_common(1)[0]
    raise InputError(f'{file}: {kind} {field} {value!r} is used {count} times; give each {kind} its own {field}')


def _check_all(
    file: Path, kind: str, records: list[Record], key: str, fits: Callable[[Any], bool], advice: str
) -> None:
    bad = [record for record in records if not fits(record[key])]
    if bad:
        more = f' ({len(bad)} such {_plural(kind)})' if len(bad) > 1 else ''
        value = _short(bad[0][key])
        raise InputError(f'{file}: {kind} id {bad[0]["id"]!r} has {key} {value}{more}; {advice}')


def _plural(kind: str) -> str:
    return 'categories' if kind == 'category' else f'{kind}s'


def _short(value: Any) -> str:
    """As JSON has it, as that is what has to be mended; never long."""
    text = json.dumps(value, ensure_ascii=False).encode('utf-8', 'backslashreplace').decode()
    return text if len(text) <= 60 else text[:57] + '...'


def _is_id(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer() and abs(value) < _LARGEST_ID
    return type(value) is str or (type(value) is int and abs(value) < _LARGEST_ID)


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and value in (0, 1)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and '\0' not in value

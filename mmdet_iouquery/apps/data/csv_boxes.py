"""A CSV of boxes: a row for each object, under a header that says what its columns are.

The names of columns are those of TensorFlow's and Open Images' files and their like. A column's name says its unit
(``_px``, or ``_rel``, ``_norm`` for shares of width and height); without one it is px. Values that contradict it are
refused.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from ...datasets.coco.json_file import decoded
from ...datasets.image_files import ImageError
from ...errors import InputError
from .coco_set import role_of
from .folder import Folder, NotFoundError, counted, file_role, folder_role
from .image_sizes import agreed_size
from .reading import Account, Box, LabelledBox, LabelledImage, Reading, Size, number, reading_of_files, sound_boxes

_IMAGE = (
    *('filename', 'imagename', 'imagepath', 'imagefile', 'filepath', 'imageid', 'imgpath'),
    *('image', 'file', 'path', 'img'),
)
_CLASS = ('class', 'classname', 'labelname', 'label', 'category', 'categoryname', 'name', 'classid', 'categoryid')
_CORNERS = (
    ('xmin', 'ymin', 'xmax', 'ymax'),
    ('x1', 'y1', 'x2', 'y2'),
    ('left', 'top', 'right', 'bottom'),
    ('xtl', 'ytl', 'xbr', 'ybr'),
    ('x0', 'y0', 'x1', 'y1'),
)
_SIDES = (
    ('x', 'y', 'w', 'h'),
    ('x', 'y', 'width', 'height'),
    ('left', 'top', 'width', 'height'),
    ('xmin', 'ymin', 'width', 'height'),
    ('bboxx', 'bboxy', 'bboxwidth', 'bboxheight'),
    ('bboxx', 'bboxy', 'bboxw', 'bboxh'),
)
_CENTRES = (
    ('xcenter', 'ycenter', 'width', 'height'),
    ('xcenter', 'ycenter', 'w', 'h'),
    ('centerx', 'centery', 'width', 'height'),
    ('cx', 'cy', 'w', 'h'),
    ('xc', 'yc', 'w', 'h'),
)
_SIZES = (('imagewidth', 'imageheight'), ('imgwidth', 'imgheight'), ('width', 'height'))
_SPLIT = ('split', 'set', 'subset', 'part', 'usage')
_CROWD = ('iscrowd', 'isgroupof', 'difficult')
_RELATIVE, _PX = ('rel', 'relative', 'norm', 'normalized', 'normalised'), ('px', 'pixel', 'pixels')
_EXAMPLE = 'image,class,xmin,ymin,xmax,ymax (px), or xmin_rel,... (shares of width and height, from 0 to 1)'
_MOST = 0.5


@dataclass(frozen=True)
class Columns:
    """What the columns of a file are, by their places in a row.

    Attributes:
        image: of the image's name.
        label: of the class's name.
        box: of the four numbers of a box.
        kind: ``corners``, ``sides`` (corner, width, height) or ``centre``.
        relative: whether the numbers are shares of width and height.
        width: how many columns there are.
        size: of the image's width and height.
        split: of the split.
        crowd: of a flag for what is not one object.
    """

    image: int
    label: int
    box: tuple[int, ...]
    kind: str
    relative: bool
    width: int
    size: tuple[int, ...] = ()
    split: int | None = None
    crowd: int | None = None


@dataclass
class Rows:
    """The rows of one image."""

    split: str
    stated: tuple[float, float] | None = None
    boxes: list[tuple[str, Box, bool]] = field(default_factory=list)


def columns_of(header: Sequence[str]) -> Columns | None:
    """What a header says; None: not where image, class and box are."""
    keys = [re.sub('[^a-z0-9]', '', name.lower()) for name in header]
    units = [_unit(name) for name in header]
    plain = [key[: -len(unit)] if unit and key != unit else key for key, unit in zip(keys, units)]

    def find(names: Sequence[str]) -> int | None:
        return next((plain.index(name) for name in names if name in plain), None)

    image, label = find(_IMAGE), find(_CLASS)
    for kind, choices in (('corners', _CORNERS), ('centre', _CENTRES), ('sides', _SIDES)):
        names = next((names for names in choices if set(names) <= set(plain)), None)
        if names is None or image is None or label is None:
            continue
        box = tuple(map(plain.index, names))
        open_images = keys[image] == 'imageid' and keys[label] == 'labelname'  # whose boxes are shares
        relative = {units[column] in _RELATIVE for column in box}
        if len(relative) > 1:
            return None
        taken = set(box)
        sizes = (tuple(map(plain.index, pair)) for pair in _SIZES if set(pair) <= set(plain))
        size = next((pair for pair in sizes if not taken & set(pair)), ())
        is_relative = relative.pop() or (open_images and kind == 'corners' and not any(units[column] for column in box))
        return Columns(image, label, box, kind, is_relative, len(keys), size, find(_SPLIT), find(_CROWD))
    return None


def _unit(name: str) -> str:
    """The word at a column's end, if it is one for a unit."""
    word = re.split('[^a-z]', re.sub('([a-z])([A-Z])', r'\1_\2', name.strip()).lower().rstrip(')] '))[-1]
    return word if word in _RELATIVE + _PX else ''


def is_boxes(path: Path) -> bool:
    """Whether a .csv or .tsv file has a header that is understood."""
    try:
        header = next(_rows(path), None)
    except InputError:
        return False
    return header is not None and columns_of(header) is not None


def read_csv(folder: Folder, files: Sequence[Path]) -> Reading:
    """Read one file, or one for each split.

    Args:
        folder: where the images are.
        files: of several, the names say the splits.

    Raises:
        InputError: a header is not understood; boxes are not in the unit that it says.
    """
    account = Account()
    images: list[LabelledImage] = []
    for file in files:
        images += _images(folder, file, file_role(file, files, folder.root), account)
    return reading_of_files('CSV of boxes', folder, files, images, account, 'in no row')


def _images(folder: Folder, file: Path, role: str, account: Account) -> Iterator[LabelledImage]:
    rows = _rows(file)
    header = next(rows, [])
    columns = columns_of(header)
    if columns is None:
        raise InputError(
            f'{file}: its first row ({", ".join(header)}) does not say where image, class and box are, in one '
            f'unit; write a header such as {_EXAMPLE}'
        )
    by_image = _by_image(rows, columns, file, role, account)
    names = [header[column] for column in columns.box]
    _check_unit(file, names, columns, by_image)
    unit = 'shares of width and height' if columns.relative else 'px'
    account.remarks.append(f'{file.name}: boxes are {", ".join(names)}, taken for {columns.kind} in {unit}')
    for name, image_rows in counted([*by_image.items()], 'images'):
        try:
            path = folder.images.named(name)
            size = agreed_size(path, image_rows.stated)
        except (NotFoundError, ImageError) as error:
            account.leave_out('images', str(error), name)
            continue
        boxes = [
            LabelledBox(label, _in_px(box, columns.relative, size), crowd) for label, box, crowd in image_rows.boxes
        ]
        split = image_rows.split or folder_role(path, folder.root)
        yield LabelledImage(path, size, sound_boxes(account, boxes, name), split)


def _by_image(rows: Iterator[list[str]], columns: Columns, file: Path, role: str, account: Account) -> dict[str, Rows]:
    """Boxes x, y, w, h of each image, in the file's unit; a row without numbers stands for an image without objects."""
    by_image: dict[str, Rows] = {}
    for line, row in enumerate(rows, 2):
        if not any(cell.strip() for cell in row):
            continue
        where = f'{file.name} row {line}'
        cells = [*row, *[''] * (columns.width - len(row))]
        name = cells[columns.image].strip()
        if not name:
            account.leave_out('boxes', 'a row without an image', where)
            continue
        split = '' if columns.split is None else cells[columns.split]
        image_rows = by_image.setdefault(name, Rows(role_of(Path(split.strip()), Path()) or role))
        values, label = [cells[column].strip() for column in columns.box], cells[columns.label].strip()
        if not any(values):
            continue
        try:
            if columns.size and image_rows.stated is None:
                image_rows.stated = number(cells[columns.size[0]]), number(cells[columns.size[1]])
            numbers = [number(value) for value in values]
        except ValueError:
            account.leave_out('boxes', 'a row whose box or size is not made of numbers', where)
            continue
        if not label:
            account.leave_out('boxes', 'a row without a class', where)
            continue
        crowd = columns.crowd is not None and cells[columns.crowd].strip().lower() in ('1', 'true')
        image_rows.boxes.append((label, _corner_and_sides(numbers, columns.kind), crowd))
    return by_image


def _corner_and_sides(values: Sequence[float], kind: str) -> Box:
    a, b, c, d = values
    if kind == 'corners':
        return a, b, c - a, d - b
    return (a - c / 2, b - d / 2, c, d) if kind == 'centre' else (a, b, c, d)


def _check_unit(file: Path, names: Sequence[str], columns: Columns, by_image: Mapping[str, Rows]) -> None:
    """Raise InputError where most boxes are not in the unit of the header."""
    boxes = [box for rows in by_image.values() for _, box, _ in rows.boxes]
    small = sum(max(map(abs, (x, y, x + w, y + h))) <= 1 for x, y, w, h in boxes)
    shown = ', '.join(names)
    large = sum(max(map(abs, (x, y, x + w, y + h))) > 1.5 for x, y, w, h in boxes)
    if columns.relative and large > _MOST * len(boxes):
        raise InputError(
            f'{file}: {shown} are shares by their names, but {large} of {len(boxes)} boxes reach beyond 1; correct the '
            'header, or the numbers'
        )
    if not columns.relative and small > _MOST * len(boxes):
        raise InputError(
            f'{file}: {small} of {len(boxes)} boxes ({shown}) lie between 0 and 1, as shares of width and height do; '
            f'say so in the header ({names[0]}_rel, ...), or write px'
        )


def _in_px(box: Box, relative: bool, size: Size) -> Box:
    x, y, w, h = box
    return (x * size[0], y * size[1], w * size[0], h * size[1]) if relative else box


def _rows(path: Path) -> Iterator[list[str]]:
    """Rows of a file that is separated by commas, semicolons or tabs, whichever its first line has most of."""
    text = decoded(path, 'utf-8-sig')
    first = text.partition('\n')[0]
    separator = max(',;\t', key=first.count)
    try:
        yield from csv.reader(StringIO(text, newline=''), delimiter=separator)
    except csv.Error as error:
        raise InputError(
            f'{path} cannot be read as CSV: {error}; save it as CSV with a comma between values'
        ) from error

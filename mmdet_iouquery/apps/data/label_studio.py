"""Label Studio's JSON and JSON-MIN exports: a list of tasks, shapes in percent of width and height.

Source: labelstud.io, "Label Studio Task Format", and its pages on RectangleLabels, PolygonLabels and EllipseLabels; of
brush masks, the format of @thi.ng/rle-pack, which they are packed by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ...datasets.coco.json_file import decoded
from ...datasets.image_files import ImageError
from ...errors import InputError
from .folder import IMAGE_SUFFIXES, Folder, NotFoundError, counted, file_role, folder_role
from .image_sizes import agreed_size
from .reading import (
    Account,
    Box,
    LabelledBox,
    LabelledImage,
    Reading,
    Size,
    number,
    polygon_box,
    reading_of_files,
    sound_boxes,
    turned_box,
)

Task = Mapping[str, Any]
_MADE_BOXES = {'polygonlabels': 'polygons', 'ellipselabels': 'ellipses', 'brushlabels': 'brush masks'}
_SHAPES = ('rectanglelabels', *_MADE_BOXES)
_NOT_DONE = 'tasks that are not annotated'
_UPLOAD = re.compile('^[0-9a-f]{8}-')  # what Label Studio puts before the name of a file that is uploaded


def begins_as_list(path: Path) -> bool:
    """Whether a JSON file is a list, as this export is and COCO is not; told by its first character."""
    with open(path, 'rb') as file:
        return file.read(256).lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'[')


def read_label_studio(folder: Folder, documents: Sequence[Path]) -> Reading:
    """Read one export, or one for each split.

    Of a task's annotations the ground truth is taken, else the newest; predictions and cancelled ones are not.

    Args:
        folder: where the images are.
        documents: the JSON files; of several, the names or folders say the splits.

    Raises:
        InputError: a file is no such export.
    """
    account, images = Account(), []
    for document in documents:
        role = file_role(document, documents, folder.root)
        for index, task in enumerate(counted(_tasks(document), 'tasks')):
            image = _image(folder, task, f'task {task.get("id", index)}', role, account)
            if image is not None:
                images.append(image)
    return reading_of_files('Label Studio', folder, documents, images, account, 'not in the export')


def _tasks(document: Path) -> Sequence[Task]:
    try:
        tasks = json.loads(decoded(document, 'utf-8-sig'))
    except (ValueError, RecursionError) as error:
        raise InputError(f'{document} is not valid JSON: {error}; export it again') from error
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise InputError(f'{document} is no export of Label Studio: it is not a list of tasks; export it as JSON')
    return tasks


def _image(folder: Folder, task: Task, name: str, role: str, account: Account) -> LabelledImage | None:
    results = _results(task, name, account)
    try:
        path = _file(folder, task)
        if results is None:
            raise NotFoundError  # which is no fault
        sizes = [
            (result['original_width'], result.get('original_height'))
            for result in results
            if result.get('original_width')
        ]
        size = agreed_size(path, sizes[0] if sizes else None)
    except (NotFoundError, ImageError) as error:
        reason = str(error)
        account.leave_out('images', reason if results is not None else _NOT_DONE, name, fault=results is not None)
        return None
    boxes = list(_boxes(results, size, name, account))
    split = role or folder_role(path, folder.root)
    return LabelledImage(path, size, sound_boxes(account, boxes, name), split)


def _results(task: Task, name: str, account: Account) -> Sequence[Mapping[str, Any]] | None:
    """The shapes of a task; None: nobody has annotated it."""
    annotations = task.get('annotations', task.get('completions'))
    if not isinstance(annotations, list):  # JSON-MIN: each tag's values stand in the task itself
        lists = [value for value in task.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        return [{**value, 'value': value} for values in lists for value in values] or None
    done = [
        annotation for annotation in annotations if isinstance(annotation, dict) and not annotation.get('was_cancelled')
    ]
    if not done:
        return None
    if len(done) > 1:
        account.change('tasks annotated several times: the ground truth, else the newest one, is used', name)
    best = max(
        done, key=lambda annotation: (bool(annotation.get('ground_truth')), str(annotation.get('updated_at') or ''))
    )
    return [result for result in best.get('result') or [] if isinstance(result, dict)]


def _file(folder: Folder, task: Task) -> Path:
    """A task's image: by its URL or path, with or without what an upload puts before the name.

    Raises:
        NotFoundError: it is not in the folder.
    """
    data = task.get('data', task)
    addresses = [value for value in (data.values() if isinstance(data, dict) else ()) if isinstance(value, str)]
    paths = [path for address in addresses for path in _paths(address) if Path(path).suffix.lower() in IMAGE_SUFFIXES]
    for path in (*paths, *(_UPLOAD.sub('', Path(path).name, count=1) for path in paths)):
        try:
            return folder.images.named(path)
        except NotFoundError as error:
            last = error
    raise last if paths else NotFoundError('no image is named')


def _paths(address: str) -> list[str]:
    """The path of a URL; that of a local file stands behind ``?d=``."""
    url = urlsplit(address)
    return [*parse_qs(url.query).get('d', []), unquote(url.path)]


def _boxes(results: Sequence[Mapping[str, Any]], size: Size, name: str, account: Account) -> Iterator[LabelledBox]:
    for result in results:
        value = result.get('value')
        if not isinstance(value, dict) or 'choices' in value or 'text' in value:  # of the image, not of an object
            continue
        kind = next((key for key in _SHAPES if value.get(key)), None)
        if kind is None:
            label_kind = next((key for key in value if key.endswith('labels')), 'shape without a label')
            account.leave_out('boxes', f'{label_kind}, which is no labelled rectangle, polygon, ellipse or mask', name)
            continue
        if len(value[kind]) > 1:
            account.change('objects of several labels: the first one is used', name)
        try:
            yield LabelledBox(str(value[kind][0]).strip(), _box(kind, value, size, name, account))
        except (KeyError, TypeError, ValueError):
            account.leave_out('boxes', 'a shape whose place is not made of numbers', name)


def _box(kind: str, value: Mapping[str, Any], size: Size, name: str, account: Account) -> Box:
    """The box of a shape in px; a rectangle is turned about its first corner, an ellipse about its centre."""
    if kind != 'rectanglelabels':
        account.change(f'{_MADE_BOXES[kind]} converted to boxes', name)
    if kind == 'brushlabels':
        return brush_box(value['rle'], size)
    across, down = size[0] / 100, size[1] / 100
    if kind == 'polygonlabels':
        points = [(number(x) * across, number(y) * down) for x, y in value['points']]
        return polygon_box([x for x, _ in points], [y for _, y in points])
    x, y = number(value['x']) * across, number(value['y']) * down
    if kind == 'ellipselabels':
        rx, ry = number(value['radiusX']) * across, number(value['radiusY']) * down
        box = (x - rx, y - ry, 2 * rx, 2 * ry)
    else:
        box = (x, y, number(value['width']) * across, number(value['height']) * down)
    degrees = number(value.get('rotation') or 0)
    if degrees:
        account.change('rotated shapes converted to the upright boxes around them', name)
    return turned_box(box, degrees, (x, y))


def brush_box(packed: Sequence[int], size: Size) -> Box:
    """The box around a brush's mask: pixels of 4 bytes, RGBA, row by row, of which alpha is what was painted.

    Packed are, bit by bit: the number of bytes (32 bits), the bits of one less 1 (5), four lengths of counts less 1
    (4 each); then runs of a flag, which of the four lengths (2), a count less 1, and the byte that is repeated so
    often, or, where the flag is 0, so many bytes.

    Args:
        packed: bytes.
        size: of the image in px.

    Raises:
        ValueError: it is no mask of such an image, or nothing is painted.
    """
    width, height = size
    bits = _Bits(bytes(packed))
    count, bits_of_one = bits.take(32), bits.take(5) + 1
    lengths = [bits.take(4) + 1 for _ in range(4)]
    if count != 4 * width * height or bits_of_one != 8:
        raise ValueError('a mask of another image')
    values = np.zeros(count, dtype=np.uint8)
    start = 0
    while start < count:
        is_run = bits.take(1)
        end = start + bits.take(lengths[bits.take(2)]) + 1
        values[start:end] = bits.take(8) if is_run else [bits.take(8) for _ in range(start, min(end, count))]
        start = end
    ys, xs = np.nonzero(values.reshape(height, width, 4)[:, :, 3])
    if not len(xs):
        raise ValueError('nothing is painted')
    x, y = int(xs.min()), int(ys.min())
    return x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1


class _Bits:
    """Reads numbers of some bits each, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> int:
        """The next number; raises ValueError at the end."""
        first, self.position = self.position, self.position + count
        if self.position > 8 * len(self.data):
            raise ValueError('it ends too early')
        last = (self.position + 7) // 8
        number = int.from_bytes(self.data[first // 8 : last], 'big') >> (8 * last - self.position)
        return number & ((1 << count) - 1)

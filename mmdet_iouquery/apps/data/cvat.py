"""CVAT for images 1.1: one XML file for all images, corners in px from 0.

Source: docs.cvat.ai, "XML annotation format".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from ...datasets.image_files import ImageError
from ...errors import InputError
from .coco_set import role_of
from .folder import Folder, NotFoundError, counted, file_role, folder_role
from .image_sizes import agreed_size
from .reading import (
    Account,
    Box,
    LabelledBox,
    LabelledImage,
    Reading,
    number,
    polygon_box,
    reading_of_files,
    sound_boxes,
    turned_box,
)
from .xml_file import XmlError, read_xml, text_of

_NOT_OBJECTS = ('tag', 'attribute')


def read_cvat(folder: Folder, documents: Sequence[Path]) -> Reading:
    """Read one export, or one for each split.

    Args:
        folder: where the images are.
        documents: the XML files; of several, the names or folders say the splits.

    Raises:
        InputError: a file is no such export; it is one of a video.
    """
    account = Account()
    images = []
    labels: list[str] = []
    for document in documents:
        root = _root(document)
        for label in root.iterfind('meta//labels/label'):
            if label.find('parent') is None:  # a part of a skeleton has one
                labels.append(text_of(label, 'name'))
        role = file_role(document, documents, folder.root)
        for element in counted(root.findall('image'), 'images'):
            image = _image(folder, element, document, role, account)
            if image is not None:
                images.append(image)
    classes = [*filter(None, dict.fromkeys(labels))]
    return reading_of_files('CVAT for images', folder, documents, images, account, 'not in the export', classes)


def _root(document: Path) -> Element:
    try:
        root = read_xml(document)
    except XmlError as error:
        raise InputError(f'{document} is {error}; export it again') from error
    if root.tag != 'annotations' or (root.find('image') is None and root.find('track') is None):
        raise InputError(f'{document} is no export of CVAT: it has no images; export it as "CVAT for images 1.1"')
    if root.find('track') is not None:
        raise InputError(
            f'{document} is an export as "CVAT for video", whose tracks have no images; export it as "CVAT for images"'
        )
    return root


def _image(folder: Folder, element: Element, document: Path, role: str, account: Account) -> LabelledImage | None:
    name = element.get('name', '')
    try:
        path = folder.images.named(name)
        size = agreed_size(path, (element.get('width'), element.get('height')))
    except (NotFoundError, ImageError) as error:
        account.leave_out('images', str(error), name or document.name)
        return None
    boxes = []
    for shape in element:
        if shape.tag in _NOT_OBJECTS:
            continue
        try:
            boxes.append(LabelledBox(shape.get('label', ''), _box(shape, name, account)))
        except ValueError as error:
            account.leave_out('boxes', str(error), name)
    split = role_of(Path(element.get('subset', '')), Path()) or role or folder_role(path, folder.root)
    return LabelledImage(path, size, sound_boxes(account, boxes, name), split)


def _box(shape: Element, name: str, account: Account) -> Box:
    """The box of a shape; raises ValueError, with the reason alone, for shapes that have none."""
    if shape.tag not in _SHAPES:
        raise ValueError(f'a {shape.tag}, which is no box, polygon, mask or ellipse')
    if not shape.get('label'):
        raise ValueError('an object without a label')
    if shape.tag != 'box':
        account.change(f'{shape.tag}s converted to boxes', name)
    try:
        box, centre = _SHAPES[shape.tag](shape)
        degrees = number(shape.get('rotation', 0))
    except (TypeError, ValueError):  # an attribute is missing, or no number
        raise ValueError(f'a {shape.tag} whose place is not made of numbers') from None
    if degrees:
        account.change('rotated shapes converted to the upright boxes around them', name)
    return turned_box(box, degrees, centre)


def _corners(shape: Element) -> tuple[Box, tuple[float, float]]:
    x1, y1, x2, y2 = (number(shape.get(side)) for side in ('xtl', 'ytl', 'xbr', 'ybr'))
    return (x1, y1, x2 - x1, y2 - y1), ((x1 + x2) / 2, (y1 + y2) / 2)


def _polygon(shape: Element) -> tuple[Box, tuple[float, float]]:
    points = [tuple(map(number, point.split(','))) for point in shape.get('points', '').split(';')]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return polygon_box(xs, ys), (0.0, 0.0)


def _mask(shape: Element) -> tuple[Box, tuple[float, float]]:
    x, y, w, h = (number(shape.get(side)) for side in ('left', 'top', 'width', 'height'))
    return (x, y, w, h), (0.0, 0.0)


def _ellipse(shape: Element) -> tuple[Box, tuple[float, float]]:
    cx, cy, rx, ry = (number(shape.get(side)) for side in ('cx', 'cy', 'rx', 'ry'))
    return (cx - rx, cy - ry, 2 * rx, 2 * ry), (cx, cy)


_SHAPES = {'box': _corners, 'polygon': _polygon, 'mask': _mask, 'ellipse': _ellipse}

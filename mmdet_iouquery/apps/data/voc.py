"""Pascal VOC: an XML file for each image, in ``Annotations`` with lists in ``ImageSets``, or beside the images.

Source: the development kit of the VOC challenges (2007 to 2012), in which pixels are counted from 1 and both corners of
a box belong to it. Programs of today write corners that are counted from 0 as often; see :func:`first_pixel`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from ...datasets.coco.json_file import decoded
from ...datasets.image_files import ImageError
from ...errors import InputError
from .folder import Folder, NotFoundError, counted, folder_role
from .image_sizes import agreed_size
from .reading import (
    Account,
    Box,
    LabelledBox,
    LabelledImage,
    Reading,
    Size,
    natural,
    number,
    polygon_box,
    sound_boxes,
)
from .xml_file import XmlError, read_xml, text_of

_LISTS = ('train', 'val', 'test', 'trainval')  # what the first say counts


@dataclass(frozen=True)
class VocObject:
    """One object; corners x1, y1, x2, y2 as they are written."""

    label: str
    corners: Box
    difficult: bool


@dataclass(frozen=True)
class VocImage:
    """What one XML file says."""

    xml: Path
    path: Path
    size: Size
    objects: tuple[VocObject, ...]


def read_voc(folder: Folder, documents: Sequence[Path]) -> Reading:
    """Read a set.

    Objects marked ``difficult`` become crowds: the challenges counted them neither as found nor as missed.

    Args:
        folder: the set's.
        documents: its XML files.

    Raises:
        InputError: a list in ImageSets cannot be read; the folder holds several sets.
    """
    account = Account()
    splits, missing = _splits(folder, documents, account)
    voc_images = [
        labelled for xml in counted([*splits], 'XML files') if (labelled := _image(folder, xml, account)) is not None
    ]
    boxes_xyxy = [labelled.corners for image in voc_images for labelled in image.objects]
    first, why = first_pixel(boxes_xyxy)
    if boxes_xyxy:
        account.remarks.append(f'corners are counted from {first}: {why}')
    images = []
    for image in voc_images:
        boxes = [
            LabelledBox(labelled.label, voc_box(labelled.corners, first), labelled.difficult)
            for labelled in image.objects
        ]
        name = folder.name(image.xml)
        for _ in filter(lambda labelled: labelled.difficult, image.objects):
            account.change('objects marked difficult read as crowds: neither trained on nor counted as missed', name)
        images.append(LabelledImage(image.path, image.size, sound_boxes(account, boxes, name), splits[image.xml]))
    stems = {xml.stem for xml in documents} | missing
    for path in folder.images.unmeant():
        if path.stem not in stems:
            account.leave_out('images', 'without an XML file', folder.name(path), fault=False)
    names = {labelled.label for image in voc_images for labelled in image.objects}
    _say_alike(account, names)
    return Reading('Pascal VOC', folder.root, tuple(images), _classes(folder, names), account)


def first_pixel(boxes_xyxy: Sequence[Box]) -> tuple[int, str]:
    """What a set's first pixel is called, 1 or 0, and by which sign.

    Pixels are counted from 1 unless a corner lies below 1, or most boxes have fractions: these are no pixels, but
    places between them, as CVAT and Datumaro write them, from 0.
    """
    if any(min(box) < 1 for box in boxes_xyxy):
        return 0, 'some lie below 1, which pixels counted from 1, as in Pascal VOC, cannot'
    if sum(any(value % 1 for value in box) for box in boxes_xyxy) > len(boxes_xyxy) / 2:
        return 0, 'most boxes have fractions, so they are not the whole pixels of Pascal VOC'
    return 1, 'whole pixels that belong to the box, as in Pascal VOC; none lies below 1'


def voc_box(corners: Box, first: int) -> Box:
    """x, y, w, h in px from corners x1, y1, x2, y2.

    Counted from 1, pixel n reaches from n - 1 to n, so that a box from 1 to W has the width W.
    """
    x1, y1, x2, y2 = corners
    return x1 - first, y1 - first, x2 - x1 + first, y2 - y1 + first


def _splits(folder: Folder, documents: Sequence[Path], account: Account) -> tuple[dict[Path, str], set[str]]:
    """The split of each XML file that is to be read, by ImageSets, else by the names of folders; ids without one."""
    lists = _lists(folder)
    if not lists:
        return {xml: folder_role(xml, folder.root) for xml in documents}, set()
    by_id = {xml.stem: xml for xml in documents}
    others = {'train', 'val'} - {*lists}
    of_the_rest = others.pop() if len(others) == 1 else ''
    splits: dict[Path, str] = {}
    missing: set[str] = set()
    for name in (name for name in _LISTS if name in lists):
        for line in lists[name]:
            # behind a blank, a column may say whether a class is there
            image_id = line if line in by_id else re.sub(r'\s+-?[01]$', '', line)
            stem = image_id.rpartition('/')[2]
            xml = by_id.get(stem)
            if xml is None and stem not in missing:
                account.leave_out('images', f'listed in {name}.txt, but without an XML file', image_id)
                missing.add(stem)
            elif xml is not None:
                splits.setdefault(xml, of_the_rest if name == 'trainval' else name)
    for xml in documents:
        if xml not in splits:
            account.leave_out('images', 'in none of the lists of ImageSets', folder.name(xml), fault=False)
    return splits, missing


def _lists(folder: Folder) -> dict[str, list[str]]:
    """The lines of each list in ImageSets/Main, or in ImageSets itself."""
    files = [path for path in folder.with_suffix('.txt') if path.stem in _LISTS and 'ImageSets' in path.parts[-3:-1]]
    files = [path for path in files if path.parent.name == 'Main'] or [
        path for path in files if path.parent.name == 'ImageSets'
    ]
    kits = sorted({path.parent for path in files})
    if len(kits) > 1:
        names = ', '.join(map(folder.name, kits))
        raise InputError(f'{folder.root} holds several sets of Pascal VOC, with lists in {names}; name one of them')
    return {
        path.stem: [line.strip() for line in decoded(path, 'utf-8-sig').splitlines() if line.strip()] for path in files
    }


def _image(folder: Folder, xml: Path, account: Account) -> VocImage | None:
    name = folder.name(xml)
    try:
        root = read_xml(xml)
        if root.tag != 'annotation':
            raise XmlError('an XML file that is not Pascal VOC')
        path = _file(folder, xml, text_of(root, 'filename'))
        size = agreed_size(path, (root.findtext('size/width'), root.findtext('size/height')))
    except (XmlError, NotFoundError, ImageError) as error:
        account.leave_out('images', str(error), name)
        return None
    objects = [
        labelled for element in root.findall('object') if (labelled := _object(element, name, account)) is not None
    ]
    return VocImage(xml, path, size, tuple(objects))


def _file(folder: Folder, xml: Path, name: str) -> Path:
    """The image of an XML file: of its stem, as the form has it, or else of the name that it says."""
    try:
        return folder.images.of_label(xml)
    except NotFoundError:
        if not name:
            raise
        return folder.images.named('/'.join((*xml.parent.parts[1:], name)), near=xml.parent)


def _object(element: Element, name: str, account: Account) -> VocObject | None:
    label = text_of(element, 'name')
    if not label:
        account.leave_out('boxes', 'an object without a name', name)
        return None
    try:
        corners = _corners(element, name, account)
    except ValueError:
        account.leave_out('boxes', 'an object without a box of four numbers', name)
        return None
    if corners[2] < corners[0] or corners[3] < corners[1]:
        account.change('corners put in order', name)
        corners = min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])
    return VocObject(label, corners, text_of(element, 'difficult').lower() in ('1', 'true'))


def _corners(element: Element, name: str, account: Account) -> Box:
    """Raises ValueError where there is neither a box nor a polygon (x1, y1, x2, y2, ..., as some exporters have it)."""
    box = element.find('bndbox')
    if box is not None:
        x1, y1, x2, y2 = (number(box.findtext(side)) for side in ('xmin', 'ymin', 'xmax', 'ymax'))
        return x1, y1, x2, y2
    points = [number(point.text) for point in element.findall('polygon/*')]
    if len(points) < 6 or len(points) % 2:
        raise ValueError('no polygon')
    x, y, w, h = polygon_box(points[::2], points[1::2])
    account.change('polygons converted to boxes', name)
    return x, y, x + w, y + h


def _classes(folder: Folder, names: set[str]) -> tuple[str, ...]:
    """In the order of labelmap.txt (CVAT, Datumaro) or classes.txt, if there is one; else sorted, numbers by value."""
    for path in folder.with_suffix('.txt', depth=1):
        if path.name in ('labelmap.txt', 'classes.txt'):
            lines = [line.strip() for line in decoded(path, 'utf-8-sig').splitlines()]
            listed = [line.partition(':')[0] if path.name == 'labelmap.txt' else line for line in lines if line]
            listed = [name for name in listed if not name.startswith('#') and (name != 'background' or name in names)]
            return (*listed, *sorted(names - set(listed), key=natural))
    return tuple(sorted(names, key=natural))


def _say_alike(account: Account, names: Iterable[str]) -> None:
    by_letters: dict[str, list[str]] = {}
    for name in sorted(names):
        by_letters.setdefault(name.casefold(), []).append(name)
    for alike in by_letters.values():
        if len(alike) > 1:
            account.remarks.append(f'{" and ".join(map(repr, alike))} are different classes, by their letters')

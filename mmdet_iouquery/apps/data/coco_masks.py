"""COCO whose annotations have masks, but no boxes: the boxes are made of the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...datasets.coco.json_file import read_json
from ...datasets.image_files import ImageError
from ...errors import InputError
from .folder import Folder, NotFoundError, counted, file_role
from .image_sizes import agreed_size
from .reading import Account, Box, LabelledBox, LabelledImage, Reading, number, polygon_box, sound_boxes

Record = Mapping[str, Any]


def lacks_boxes(path: Path) -> bool:
    """Whether a file is COCO but for the boxes of annotations that have masks."""
    try:
        content = read_json(path)
    except InputError:
        return False
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _LISTS):
        return False
    annotations = [annotation for annotation in content['annotations'] if isinstance(annotation, dict)]
    return any(not annotation.get('bbox') and annotation.get('segmentation') for annotation in annotations)


def read_coco_masks(folder: Folder, files: Sequence[Path]) -> Reading:
    """Read one file, or one for each split.

    Raises:
        InputError: a record lacks what it needs, or the files have different categories.
    """
    account, images = Account(), []
    names: dict[object, str] = {}
    for file in files:
        content = read_json(file)
        try:
            categories = {category['id']: str(category['name']) for category in content['categories']}
            if names and categories != names:
                raise InputError(f'{file} and {files[0]} have different categories; write the same list in both')
            names = categories
            by_image: dict[object, list[Record]] = {image['id']: [] for image in content['images']}
            for annotation in content['annotations']:
                by_image[annotation['image_id']].append(annotation)
        except (KeyError, TypeError) as error:
            raise InputError(f'{file} lacks {error} where COCO has it; correct it') from error
        role = file_role(file, files, folder.root)
        for image in counted(content['images'], 'images'):
            labelled = _image(folder, image, by_image[image['id']], names, role, account)
            if labelled is not None:
                images.append(labelled)
    source = files[0] if len(files) == 1 else folder.root
    return Reading('COCO without boxes', source, tuple(images), tuple(names.values()), account)


def _image(
    folder: Folder,
    image: Record,
    annotations: Sequence[Record],
    names: Mapping[object, str],
    role: str,
    account: Account,
) -> LabelledImage | None:
    file_name = str(image.get('file_name', ''))
    try:
        path = folder.images.named(file_name)
        size = agreed_size(path, (image.get('width'), image.get('height')))
    except (NotFoundError, ImageError) as error:
        account.leave_out('images', str(error), file_name)
        return None
    boxes = []
    for annotation in annotations:
        where = f'annotation id {annotation.get("id")!r}'
        try:
            box = _box(annotation, size, where, account)
            boxes.append(LabelledBox(names[annotation['category_id']], box, annotation.get('iscrowd') in (1, True)))
        except KeyError:
            account.leave_out('boxes', 'a category that the file does not have', where)
        except (TypeError, ValueError, IndexError):
            account.leave_out('boxes', 'neither a box nor a mask that can be read', where)
    return LabelledImage(path, size, sound_boxes(account, boxes, file_name), role)


def _box(annotation: Record, size: tuple[int, int], where: str, account: Account) -> Box:
    if annotation.get('bbox'):
        x, y, w, h = map(number, annotation['bbox'])
        return x, y, w, h
    mask = annotation.get('segmentation') or ()
    if isinstance(mask, Mapping):
        from pycocotools import mask as coco_mask

        packed = coco_mask.frPyObjects(mask, *size[::-1]) if isinstance(mask['counts'], list) else mask
        x, y, w, h = coco_mask.toBbox(packed).tolist()
    else:
        values = [number(value) for polygon in mask for value in polygon]
        x, y, w, h = polygon_box(values[::2], values[1::2])
    account.change('masks converted to boxes', where)
    return x, y, w, h


_LISTS = ('images', 'annotations', 'categories')

"""Sets of images with labels in forms other than COCO, written for tests by the forms' own descriptions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmdet_iouquery.apps.data.reading import Reading

Truth = dict[str, list[tuple[str, list[float]]]]
BOX_LINE = '1 0.5 0.5 0.2 0.4\n'
"""Of class 1; in an image of 100 x 50 px, x, y, w, h are 40, 15, 20, 20."""
TURNED = 6  # EXIF: shown after a quarter turn


def write_image(path: Path, size: tuple[int, int] = (100, 50), orientation: int | None = None) -> Path:
    """An image of this size as it is stored, grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def write_text(path: Path, text: str, encoding: str = 'utf-8') -> Path:
    """A text file, line ends as they are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def voc_xml(
    objects: Sequence[tuple[str, Sequence[object]]], size: tuple[int, int] | None = (100, 50), more: str = ''
) -> str:
    """A VOC annotation; ``objects`` are names and corners x1, y1, x2, y2."""
    stated = '' if size is None else f'<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>'
    parts = []
    for name, corners in objects:
        tags = ''.join(f'<{tag}>{value}</{tag}>' for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), corners))
        parts.append(f'<object><name>{name}</name>{more}<bndbox>{tags}</bndbox></object>')
    return f'<annotation>{stated}{"".join(parts)}</annotation>'


def boxes_of(reading: Reading) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """Names and boxes of each image, by its file name; boxes to a millionth of a px."""
    return {
        image.path.name: [(box.label, tuple(round(value, 6) for value in box.box)) for box in image.boxes]
        for image in reading.images
    }


def left_out(reading: Reading) -> dict[tuple[str, str], int]:
    """How many were left out, by what and why."""
    return {key: tally.count for key, tally in reading.account.left_out.items()}


def changed(reading: Reading) -> dict[str, int]:
    """How many were changed, by what was done."""
    return {what: tally.count for what, tally in reading.account.changed.items()}


def truth_of(ann_file: Path) -> Truth:
    """Names and boxes of each image of a COCO JSON, by its file name, sorted."""
    content: dict[str, Any] = json.loads(ann_file.read_text(encoding='utf-8'))
    names = {category['id']: category['name'] for category in content['categories']}
    files = {image['id']: Path(image['file_name']).name for image in content['images']}
    truth: Truth = {name: [] for name in files.values()}
    for annotation in content['annotations']:
        truth[files[annotation['image_id']]].append((names[annotation['category_id']], annotation['bbox']))
    return {name: sorted(boxes) for name, boxes in truth.items()}


def digits_as_yolo(digits: Path, root: Path) -> Path:
    """The digits in YOLO's form, as Ultralytics arranges it."""
    names = '\n'.join(f'  {digit}: {digit}' for digit in range(10))
    for split in ('train', 'val'):
        shutil.copytree(digits / split, root / 'images' / split)
        content = json.loads((digits / 'annotations' / f'{split}.json').read_text())
        for image in content['images']:
            size = image['width'], image['height']
            annotations = [annotation for annotation in content['annotations'] if annotation['image_id'] == image['id']]
            lines = [' '.join([str(entry['category_id'] - 1), *_shares(entry['bbox'], size)]) for entry in annotations]
            write_text(root / 'labels' / split / Path(image['file_name']).with_suffix('.txt'), '\n'.join(lines) + '\n')
    write_text(root / 'data.yaml', f'path: .\ntrain: images/train\nval: images/val\nnames:\n{names}\n')
    return root


def digits_as_voc(digits: Path, root: Path) -> Path:
    """The digits in Pascal VOC's form, in whole pixels counted from 1; names of images begin with their part's."""
    for split in ('train', 'val'):
        content = json.loads((digits / 'annotations' / f'{split}.json').read_text())
        ids = []
        for image in content['images']:
            ids.append(f'{split}{Path(image["file_name"]).stem}')
            (root / 'JPEGImages').mkdir(parents=True, exist_ok=True)
            shutil.copy(digits / split / image['file_name'], root / 'JPEGImages' / f'{ids[-1]}.jpg')
            annotations = [annotation for annotation in content['annotations'] if annotation['image_id'] == image['id']]
            objects = [(str(entry['category_id'] - 1), _pixels(entry['bbox'])) for entry in annotations]
            text = voc_xml(objects, (image['width'], image['height']))
            write_text(root / 'Annotations' / f'{ids[-1]}.xml', text)
        write_text(root / 'ImageSets' / 'Main' / f'{split}.txt', '\n'.join(ids) + '\n')
    return root


def yolo_set(
    root: Path, labels: Mapping[str, str | None], names: str = 'names: [cat, dog]', size: tuple[int, int] = (100, 50)
) -> Path:
    """A set of one part: for each name of an image the text of its label file, None for an image without one."""
    for name, text in labels.items():
        write_image(root / 'images' / name, size)
        if text is not None:
            write_text(root / 'labels' / Path(name).with_suffix('.txt'), text)
    return write_text(root / 'data.yaml', f'train: images\n{names}\n')


def _shares(box: Sequence[float], size: tuple[int, int]) -> list[str]:
    x, y, w, h = box
    return [f'{value:.6f}' for value in ((x + w / 2) / size[0], (y + h / 2) / size[1], w / size[0], h / size[1])]


def _pixels(box: Sequence[float]) -> tuple[int, ...]:
    x, y, w, h = box
    return round(x) + 1, round(y) + 1, round(x + w), round(y + h)

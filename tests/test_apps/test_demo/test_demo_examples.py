"""Examples of the validation set carry the ground truth that is drawn beside detections."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdet_iouquery.apps.demo.catalogue import found_models
from mmdet_iouquery.apps.demo.examples import thumbnail, validation_examples
from mmdet_iouquery.apps.demo.image_results import truth_boxes
from mmdet_iouquery.errors import InputError


def config_of(work_dirs: Path) -> Path:
    config = found_models(work_dirs)[0].config
    assert config is not None
    return config


def test_examples_are_the_validation_images_with_their_boxes(work_dirs: Path, digits: Path) -> None:
    content = json.loads((digits / 'annotations' / 'val.json').read_text())
    names = [entry['name'] for entry in sorted(content['categories'], key=lambda entry: entry['id'])]
    first_id = min(entry['id'] for entry in content['categories'])
    examples = validation_examples(config_of(work_dirs))
    assert len(examples) == len(content['images']) == 2
    for example, image in zip(examples, content['images']):
        assert example.path.name == image['file_name'] and example.size == (image['width'], image['height'])
        expected = [
            ([x, y, x + w, y + h], entry['category_id'])
            for entry in content['annotations']
            if entry['image_id'] == image['id']
            for x, y, w, h in [entry['bbox']]
        ]
        boxes = truth_boxes(example)
        assert len(boxes) == len(expected) > 0
        for box, (corners, category) in zip(boxes, expected):
            assert np.allclose(box.xyxy_px, corners) and box.score is None
            assert example.classes[box.label] == names[category - first_id]
    assert len(validation_examples(config_of(work_dirs), count=1)) == 1


def test_a_set_that_is_not_here_gets_a_sentence(work_dirs: Path, tmp_path: Path) -> None:
    base = f'_base_ = [{str(config_of(work_dirs))!r}]\n'
    moved, without = tmp_path / 'moved.py', tmp_path / 'without.py'
    moved.write_text(base + "val_dataloader = dict(dataset=dict(data_root='/moved/away/', ann_file='val.json'))\n")
    with pytest.raises(InputError, match=r'the validation set of .*moved\.py cannot be read: .*/moved/away'):
        validation_examples(moved)
    without.write_text(base + 'val_dataloader = None\n')
    with pytest.raises(InputError, match=r'the validation set of .* has no val_dataloader'):
        validation_examples(without)
    imageless = tmp_path / 'imageless.py'
    imageless.write_text(base + "val_dataloader = dict(dataset=dict(data_prefix=dict(img='/moved/away/')))\n")
    with pytest.raises(InputError, match=r'no image of the validation set of .* is on this machine'):
        validation_examples(imageless)


def test_thumbnails_are_small_and_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    Image.new('RGB', (900, 600)).save(tmp_path / 'lying.jpg', exif=exif)
    assert thumbnail(tmp_path / 'lying.jpg').size == (160, 240)
    (tmp_path / 'torn.jpg').write_bytes(b'\xff\xd8\xff')
    assert thumbnail(tmp_path / 'torn.jpg').getpixel((0, 0)) == (128, 128, 128)

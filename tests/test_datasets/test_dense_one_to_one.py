"""The shipped pipelines that change by stage: what comes out of each stage, on real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_iouquery import config_path
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.datasets.multi_image import MultiImageDataset
from mmdet_iouquery.datasets.stages import enter_stage

CONFIGS = {
    'deim': 'deim/deim-dfine_hgnetv2-s_8xb4-132e_coco.py',
    'dino': 'dino/dino-4scale_r50_dense-one-to-one_8xb2-12e_coco.py',
}
IMAGES = 12


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=IMAGES, num_val=1, image_size=96, progress=False)


def shipped(name: str, data_root: Path) -> MultiImageDataset:
    """The training set of a config, of other files."""
    init_default_scope('mmdet')
    settings = Config.fromfile(config_path(CONFIGS[name])).train_dataloader.dataset
    settings.dataset.update(
        data_root=str(data_root),
        metainfo=dict(classes=tuple('0123456789')),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
    )
    return DATASETS.build(settings)


def images_of(dataset: Any, stage: str) -> list[Any]:
    enter_stage(dataset, stage)
    np.random.seed(1)
    return [dataset[index % IMAGES] for index in range(4 * IMAGES)]


@pytest.mark.parametrize('name', CONFIGS)
def test_every_stage_gives_boxes_in_images(name: str, digits: Path) -> None:
    """Mosaics have more boxes an image than plain images have; each box lies in its image, and in its class' range."""
    dataset, boxes = shipped(name, digits), {}
    for stage in ('plain', 'mosaic', 'strong'):
        samples = images_of(dataset, stage)
        for packed in samples:
            truth = packed['data_samples'].gt_instances
            height, width = packed['inputs'].shape[-2:]
            corners = truth.bboxes.tensor
            assert tuple(packed['data_samples'].img_shape) == (height, width)
            assert (corners >= 0).all() and (corners[:, 2:] > corners[:, :2]).all()
            assert (corners[:, 2] <= width).all() and (corners[:, 3] <= height).all()
            assert len(truth.labels) == len(corners) and ((truth.labels >= 0) & (truth.labels < 10)).all()
        boxes[stage] = np.mean([len(packed['data_samples'].gt_instances) for packed in samples])
    assert boxes['mosaic'] > 1.5 * boxes['plain']
    assert boxes['strong'] <= boxes['plain']


def test_plain_images_are_only_mirrored_and_resized(digits: Path) -> None:
    dataset = shipped('deim', digits)
    for packed in images_of(dataset, 'plain')[:IMAGES]:
        meta = packed['data_samples'].metainfo
        assert packed['inputs'].shape == (3, 640, 640) and meta['ori_shape'] == (96, 96)
    plain, strong = (images_of(dataset, stage) for stage in ('plain', 'strong'))
    again = images_of(dataset, 'plain')
    assert all((first['inputs'] == second['inputs']).all() for first, second in zip(plain, again))
    assert not all((first['inputs'] == second['inputs']).all() for first, second in zip(plain, strong))

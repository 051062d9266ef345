"""A run as the quickstart leaves it: a small model with random weights that finds something."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_server import served
from exported_files import write_model
from mmdet.registry import MODELS
from mmengine.config import Config
from PIL import Image
from torch import nn

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits

SIZE, QUERIES = 64, 20
FEW_QUERIES = f"\nmodel['bbox_head']['query_selector'] = dict(num_queries={QUERIES})\n"


@pytest.fixture(scope='session')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=2, num_val=2, image_size=128, progress=False)


@pytest.fixture(scope='session')
def image_path(digits: Path) -> Path:
    return min((digits / 'val').glob('*.jpg'))


@pytest.fixture(scope='session')
def work_dirs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: ``quickstart`` with its config and ``iter_4.pth``, one whose checkpoint does not fit, an exported file."""
    run = tmp_path_factory.mktemp('runs') / 'work_dirs' / 'quickstart'
    run.mkdir(parents=True)
    config = run / 'config.py'
    config.write_text(config_text(find_coco_set(digits), iters=4, image_size=SIZE) + FEW_QUERIES)
    torch.manual_seed(0)
    detector = MODELS.build(Config.fromfile(config).model)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one pass makes the norms those of the images, so that queries differ
        if isinstance(module, nn.Linear) and module.out_features == 10:  # classes: scores all over [0, 1]
            nn.init.normal_(module.weight, std=0.15)
            nn.init.constant_(module.bias, -3)
        if isinstance(module, nn.Linear) and module.out_features == 4:  # boxes that move from layer to layer
            nn.init.normal_(module.weight, std=0.05)
    images = [np.asarray(Image.open(path).resize((SIZE, SIZE))) for path in sorted(digits.glob('*/*.jpg'))]
    with torch.no_grad():
        detector.train().extract_feat(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255)
    meta = {'dataset_meta': {'classes': tuple('abcdefghij')}}
    torch.save({'state_dict': detector.state_dict(), 'meta': meta}, run / 'iter_4.pth')
    other = run.with_name('other')
    other.mkdir()
    (other / 'config.py').write_text(config.read_text())
    torch.save({'state_dict': {'weight': torch.zeros(1)}}, other / 'iter_1.pth')
    run.with_name('exported').mkdir()
    write_model(run.with_name('exported') / 'model.onnx')
    os.utime(run.with_name('exported') / 'model.onnx', (1e9, 1e9))  # the oldest
    return run.parent


@pytest.fixture(scope='session')
def address(work_dirs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the page, served to this machine alone."""
    with served(tmp_path_factory.mktemp('server'), '--work-dirs', work_dirs) as (url, output):
        assert f'the page is at {url}' in output() and 'whoever reaches' not in output()
        yield url

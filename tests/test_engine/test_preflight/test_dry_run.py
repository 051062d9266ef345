"""The largest step of a training, tried before it starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from runs import small_run

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.engine import launch
from mmdet_iouquery.engine.preflight.dry_run import dry_run
from mmdet_iouquery.errors import InputError


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=4, num_val=2, image_size=96, progress=False)


def test_the_largest_size_and_as_many_boxes_as_asked_for(digits: Path, tmp_path: Path) -> None:
    """Of the list of sizes the largest, whatever would have been drawn; the weights do not move."""
    scales = [dict(type='BatchMultiScale', sizes=[32, 96, 64])]
    runner = small_run(digits, tmp_path / 'run', {'model.data_preprocessor.batch_augments': scales})
    before = {name: p.clone() for name, p in runner.model.named_parameters()}
    counts = []
    runner.model.bbox_head.denoising.register_forward_pre_hook(lambda _, args: counts.append(args[0].counts))
    done = dry_run(runner, boxes=37)
    assert done.input_shape == (2, 3, 96, 96) and counts == [(37, 37)]
    assert done.loss > 0 and torch.tensor(done.loss).isfinite()
    assert done.peak_mb > sum(p.nbytes for p in before.values()) / 1e6
    for name, parameter in runner.model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None


def test_from_the_command_line(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / 'config.py'
    config.write_text(config_text(find_coco_set(digits), iters=1000, image_size=64))
    launch.train([str(config), '--work-dir', str(tmp_path / 'run'), '--dry-run', '5'])
    assert re.search(r'dry run: a step with 4 images of 64 x 64 and 5 boxes each went', capsys.readouterr().out)
    assert not list((tmp_path / 'run').glob('*.pth'))
    with pytest.raises(InputError, match='--dry-run 0: name at least 1 box'):
        launch.train([str(config), '--dry-run', '0'])

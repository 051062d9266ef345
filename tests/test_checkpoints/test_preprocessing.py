"""Images come to the model as its weights know them, and what differs is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from torch import Tensor

from mmdet_iouquery import config_path
from mmdet_iouquery.checkpoints import convert
from mmdet_iouquery.checkpoints.convert_file import convert_file
from mmdet_iouquery.checkpoints.files import write_checkpoint
from mmdet_iouquery.checkpoints.notes import checkpoint_notes
from mmdet_iouquery.checkpoints.preprocessing import DAB_DETR, OF_SOURCE, RTDETR
from mmdet_iouquery.engine import launch

CONFIGS = {
    'rtdetr': 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py',
    'dab_detr': 'dab_detr/dab-detr_r50_dab-decoder_8xb2-50e_coco.py',
}
RANDOM = {'DistortColours', 'ExpandAndCrop', 'RandomFlip'}
SIDE = 640


def config(source: str = 'rtdetr', **options: Any) -> Config:
    cfg = Config.fromfile(config_path(CONFIGS[source]))
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


def written(path: Path, preprocessing: dict[str, Any] | None) -> Path:
    meta = {} if preprocessing is None else {'preprocessing': preprocessing}
    write_checkpoint(path, {'w': torch.zeros(1)}, meta, force=True)
    return path


def through(steps: list[dict[str, Any]], image: np.ndarray, folder: Path, *, training: bool) -> Tensor:
    """A BGR image (H, W, 3) as the model sees it: through a pipeline and the data preprocessor, (3, H', W')."""
    height, width = image.shape[:2]
    cv2.imwrite(str(folder / 'a.png'), image)
    box = dict(id=1, image_id=1, category_id=1, bbox=[9, 9, 30, 30], area=900, iscrowd=0)
    content = dict(
        images=[dict(id=1, file_name='a.png', width=width, height=height)],
        annotations=[box],
        categories=[dict(id=1, name='a')],
    )
    (folder / 'a.json').write_text(json.dumps(content))
    dataset = CocoDataset(
        ann_file=str(folder / 'a.json'),
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=('a',)),
        pipeline=steps,
        test_mode=not training,
    )
    settings = dict(config().model.data_preprocessor, batch_augments=None)
    return MODELS.build(settings)(pseudo_collate([dataset[0]]), training)['inputs'][0]


def resize_of(cfg: Config) -> ConfigDict:
    (resize,) = (step for step in cfg.test_dataloader.dataset.pipeline if step.type == 'Resize')
    return resize


def both_ways(image: np.ndarray, folder: Path) -> tuple[Tensor, Tensor]:
    """The image through the training pipeline without what is random, and through the test pipeline."""
    cfg = config()
    steps = [step for step in cfg.train_dataloader.dataset.pipeline if step.type not in RANDOM]
    assert len(steps) == len(cfg.train_dataloader.dataset.pipeline) - len(RANDOM)
    trained = through(steps, image, folder, training=True)
    return trained, through(cfg.test_dataloader.dataset.pipeline, image, folder, training=False)


def test_red_is_1_0_0_in_training_and_test(tmp_path: Path) -> None:
    red = np.zeros((60, 90, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    trained, tested = both_ways(red, tmp_path)
    expected = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, SIDE, SIDE)
    assert torch.equal(trained, expected) and torch.equal(tested, expected)


def test_a_ramp_is_equal_in_training_and_test(tmp_path: Path) -> None:
    """Left to right in red, top to bottom in green, at the network's own size: value / 255, each at its place."""
    ramp = np.zeros((SIDE, SIDE, 3), np.uint8)
    values = np.arange(SIDE) * 255 // (SIDE - 1)
    ramp[..., 2], ramp[..., 1] = values[None], values[:, None]
    trained, tested = both_ways(ramp, tmp_path)
    assert torch.equal(trained, tested)
    line = torch.from_numpy(values.astype(np.float32)) / 255
    assert torch.equal(trained[0], line.expand(SIDE, SIDE)) and torch.equal(
        trained[1], line[:, None].expand(SIDE, SIDE)
    )
    assert not trained[2].any()


def test_a_ramp_is_stretched_to_both_sides(tmp_path: Path) -> None:
    """80 x 120 px to 640 x 640: no border, and equal in training and test."""
    values = np.linspace(0, 255, 120).round().astype(np.uint8)
    trained, tested = both_ways(np.broadcast_to(values[None, :, None], (80, 120, 3)).copy(), tmp_path)
    assert torch.equal(trained, tested) and trained.shape == (3, SIDE, SIDE)
    centres = (np.arange(SIDE) + 0.5) / SIDE * 120 - 0.5
    expected = np.interp(centres, np.arange(120), values) / 255
    np.testing.assert_allclose(trained[0, 100].numpy(), expected, atol=1 / 255)  # rounded to whole numbers once


@pytest.mark.parametrize('source', CONFIGS)
def test_equal_settings_give_no_note(source: str, tmp_path: Path) -> None:
    assert checkpoint_notes(config(source), written(tmp_path / 'a.pth', OF_SOURCE[source])) == []


def test_a_checkpoint_that_says_nothing_gives_no_note(tmp_path: Path) -> None:
    assert checkpoint_notes(config('dab_detr'), written(tmp_path / 'a.pth', None)) == []


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'model__data_preprocessor__mean': [103.5, 116.3, 123.7]}, ['mean [103.5, 116.3, 123.7]', '[0.0, 0.0, 0.0]']),
        ({'model__data_preprocessor__std': [1.0]}, ['std [1.0, 1.0, 1.0]', '[255.0, 255.0, 255.0]']),
        ({'model__data_preprocessor__bgr_to_rgb': False}, ['in the order BGR', 'trained with RGB']),
        ({'resize__scale': (512, 640)}, ['(width, height) [512, 640]', '[640, 640]']),
        ({'resize__keep_ratio': True}, ['keep_ratio True', 'trained with False']),
    ],
    ids=['mean', 'std', 'order', 'size', 'ratio'],
)
def test_each_difference_is_named(options: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    path = written(tmp_path / 'a.pth', RTDETR)
    cfg = config()
    for key, value in options.items():
        if key.startswith('resize__'):
            resize_of(cfg)[key.removeprefix('resize__')] = value
        else:
            cfg.merge_from_dict({key.replace('__', '.'): value})
    (note,) = checkpoint_notes(cfg, path)
    assert all(word in note for word in [*words, str(path)]), note


def test_no_normalisation_at_all_is_a_difference(tmp_path: Path) -> None:
    cfg = config()
    cfg.model.data_preprocessor.mean = cfg.model.data_preprocessor.std = None
    (note,) = checkpoint_notes(cfg, written(tmp_path / 'a.pth', RTDETR))
    assert 'std [1.0, 1.0, 1.0]' in note


def test_the_pipeline_is_found_below_a_wrapper(tmp_path: Path) -> None:
    cfg = config()
    resize_of(cfg).keep_ratio = True
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=1, dataset=cfg.test_dataloader.dataset)
    assert len(checkpoint_notes(cfg, written(tmp_path / 'a.pth', RTDETR))) == 1


def test_dab_detrs_bounds_may_come_in_either_order(tmp_path: Path) -> None:
    cfg, path = config('dab_detr'), written(tmp_path / 'a.pth', DAB_DETR)
    resize = resize_of(cfg)
    assert resize.scale == (1333, 800)
    resize.scale = (800, 1333)
    assert checkpoint_notes(cfg, path) == []
    notes = checkpoint_notes(config('rtdetr'), path)
    assert len(notes) == 4  # mean, std, scale, ratio


def test_a_conversion_writes_it_and_another_keeps_it(golden_weights: Any, tmp_path: Path) -> None:
    theirs, ours, again = (tmp_path / f'{name}.pth' for name in ('theirs', 'ours', 'again'))
    weights = golden_weights('rtdetr_r18_320x320')
    torch.save({'model': weights}, theirs)
    convert_file(theirs, ours, 'rtdetr')
    convert_file(ours, again, 'mmdet')
    for path in (ours, again):
        assert torch.load(path, weights_only=True)['meta']['preprocessing'] == RTDETR
    unknown = written(tmp_path / 'plain.pth', None)
    torch.save({'state_dict': convert(weights, 'rtdetr')}, unknown)
    convert_file(unknown, again, 'mmdet', force=True)
    assert 'preprocessing' not in torch.load(again, weights_only=True)['meta']


def test_the_tools_print_notes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = written(tmp_path / 'a.pth', RTDETR)
    launch.report_differences(config(model__data_preprocessor__bgr_to_rgb=False), str(path))
    launch.report_differences(config(), str(path))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith('note: ') and 'BGR' in lines[0]

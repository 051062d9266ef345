"""Configs fitted to data, epochs, size and batch, and the file that says what is otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from mmdet_iouquery import CocoSet
from mmdet_iouquery.apps.train.child_config import child_text
from mmdet_iouquery.apps.train.fit import Wishes, fitted, learning_rate
from mmdet_iouquery.config_files import config_path
from mmdet_iouquery.errors import InputError

SET = CocoSet(Path('/d/t.json'), Path('/d/t'), Path('/d/v.json'), Path('/d/v'), ('cat', 'dog', 'owl'))
RTDETR = 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'
DFINE = 'dfine/dfine_hgnetv2-s_8xb4-132e_coco.py'
DEIM = 'deim/deim-rtdetrv2_r18vd_8xb2-120e_coco.py'
DINO = 'dino/dino-4scale_r50_iou-aware-selector_8xb2-12e_coco.py'
DIGITS = 'quickstart/rtdetr_r18vd_digits.py'
TWO_SCALES = 'of its test pipeline'


def config(name: str) -> Config:
    return Config.fromfile(config_path(name))


def values(node: Any, name: str) -> list[Any]:
    """Of every entry of that name in nested containers."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ()
    own = [node[name]] if isinstance(node, dict) and name in node else []
    return own + [value for child in inner for value in values(child, name)]


@pytest.mark.parametrize('name', [RTDETR, DFINE, DEIM, DINO, DIGITS])
def test_data_goes_everywhere_and_the_file_is_the_same_again(name: str) -> None:
    """A file based on the shipped config resolves to what was fitted, and the shipped one stays as it was."""
    cfg = config(name)
    new = fitted(cfg, Wishes(data=SET, images=400, epochs=12, batch=4))
    assert cfg.to_dict() == config(name).to_dict()
    assert set(values(new.model.to_dict(), 'num_classes')) == {3}
    loaders = {split: new[f'{split}_dataloader'].to_dict() for split in ('train', 'val', 'test')}
    assert {split: values(loader, 'ann_file') for split, loader in loaders.items()} == {
        'train': ['/d/t.json'],
        'val': ['/d/v.json'],
        'test': ['/d/v.json'],
    }
    assert values(loaders['train'], 'data_prefix') == [{'img': '/d/t'}] and values(loaders, 'data_root') == [''] * 3
    assert values(loaders, 'metainfo') == [{'classes': ('cat', 'dog', 'owl')}] * 3
    assert values([new.val_evaluator, new.test_evaluator], 'ann_file') == ['/d/v.json'] * 2
    text = child_text(Path(config_path(name)), new, 'title')
    assert Config.fromstring(text, '.py').to_dict() == new.to_dict()
    assert len(text) < len(new.pretty_text)


def test_what_counts_epochs_keeps_its_share_of_the_run() -> None:
    new = fitted(config(DEIM), Wishes(epochs=12))
    hook = next(hook for hook in new.custom_hooks if hook.type == 'AugmentationTimetableHook')
    # of 120: 4, 64 and 117, so 0.4, 6.4 and 11.7; a stage takes at least an epoch
    assert [tuple(stage) for stage in hook.timetable] == [('plain', 0), ('mosaic', 1), ('strong', 6), ('plain', 11)]
    assert (new.param_scheduler[0].flat_end, new.param_scheduler[0].decay_end) == (6, 12)
    assert new.train_cfg.max_epochs == 12
    multi_scale = new.model.data_preprocessor.batch_augments[1]
    assert multi_scale.stop_epoch == 11
    new = fitted(config(DFINE), Wishes(epochs=10))
    assert new.custom_hooks[-1].switch_epoch == 9 == new.model.data_preprocessor.batch_augments[0].stop_epoch
    late = config(DEIM)
    late.custom_hooks.append(dict(type='MatchingCostHook', begin=119))
    assert [fitted(late, Wishes(epochs=n)).custom_hooks[-1].begin for n in (60, 12, 4)] == [59, 11, 3]
    late.custom_hooks.append(dict(type='GradientShareHook', interval=20))
    assert [fitted(late, Wishes(epochs=n)).custom_hooks[-1].interval for n in (240, 60, 12, 4)] == [40, 10, 2, 1]
    new = fitted(config(DINO), Wishes(epochs=24))
    assert new.param_scheduler[0].milestones == [22] and new.param_scheduler[0].end == 24


@pytest.mark.parametrize(('begin', 'epochs', 'expected'), [(120, 12, 12), (200, 12, 20), (120, 240, 240), (119, 4, 3)])
def test_what_begins_after_the_end_still_does(begin: int, epochs: int, expected: int) -> None:
    """It is for the run to refuse it, as that of the config itself is; of 120 epochs."""
    cfg = config(DEIM)
    timetable = next(hook for hook in cfg.custom_hooks if hook.type == 'AugmentationTimetableHook')
    timetable.timetable[-1] = ('plain', begin)
    cfg.model.data_preprocessor.batch_augments[1].stop_epoch = begin
    cfg.custom_hooks += [dict(type='MatchingCostHook', begin=begin), dict(type='GradientShareHook', default_from=begin)]
    new = fitted(cfg, Wishes(epochs=epochs))
    assert [new.custom_hooks[-2].begin, new.custom_hooks[-1].default_from] == [expected] * 2
    assert new.model.data_preprocessor.batch_augments[1].stop_epoch == expected
    assert values(new.to_dict(), 'timetable')[0][-1] == ('plain', expected)


def test_an_override_holds_as_it_is_given() -> None:
    """It counts the epochs of the run that is asked for."""
    cfg = config(DEIM)
    cfg.custom_hooks.append(dict(type='MatchingCostHook', begin=119))
    options = {f'custom_hooks.{len(cfg.custom_hooks) - 1}.begin': 9, 'param_scheduler.0.warmup_iters': 400}
    cfg.merge_from_dict(options)
    new = fitted(cfg, Wishes(data=SET, images=400, epochs=12, batch=4), options)
    assert new.custom_hooks[-1].begin == 9 and new.param_scheduler[0].warmup_iters == 400
    assert fitted(cfg, Wishes(epochs=12)).custom_hooks[-1].begin == 1


def test_runs_that_count_steps() -> None:
    """400 images in batches of 4 are 100 steps an epoch; of 900 steps as shipped."""
    digits = config(DIGITS)
    digits.custom_hooks.append(dict(type='GradientShareHook', by_epoch=False, interval=90))
    new = fitted(digits, Wishes(data=SET, images=400, epochs=2, batch=4))
    assert new.custom_hooks[-1].interval == 20
    assert new.train_cfg == dict(type='IterBasedTrainLoop', max_iters=200, val_interval=100)
    assert new.default_hooks.checkpoint.interval == 50
    warm_up, decay = new.param_scheduler
    assert (warm_up.end, decay.begin, decay.end) == (20, 100, 200)  # 150 of 900 are 33, which is more than a tenth
    assert fitted(config(DIGITS), Wishes(data=SET, images=8, epochs=1, batch=8)).param_scheduler == []  # of one step
    with pytest.raises(InputError, match='counts steps: name the data with --data'):
        fitted(config(DIGITS), Wishes(epochs=2))


@pytest.mark.parametrize(('name', 'kind', 'key'), [(RTDETR, 'LinearLR', 'end'), (DEIM, 'FlatCosineLR', 'warmup_iters')])
def test_a_warm_up_takes_at_most_a_tenth_of_a_run(name: str, kind: str, key: str) -> None:
    for images, expected in ((400, 10 * 50 // 10), (1_000_000, 2000)):
        (scheduler,) = fitted(config(name), Wishes(data=SET, images=images, epochs=10, batch=8)).param_scheduler
        assert (scheduler.type, scheduler[key]) == (kind, expected)
    (scheduler,) = fitted(config(name), Wishes(data=SET, images=400, epochs=10, batch=4, devices=2)).param_scheduler
    assert scheduler[key] == 50


@pytest.mark.parametrize('steps', [1, 2, 3, 9, 19, 20, 25])
def test_the_rate_is_reached_however_short_the_run(steps: int) -> None:
    """mmengine's LinearLR of a single step would leave it at a thousandth for all of the run."""
    new = fitted(config(RTDETR), Wishes(data=SET, images=8 * steps, epochs=1, batch=8))
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    rates = []
    schedulers = [PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer)) for scheduler in new.param_scheduler]
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    assert max(rates) == 1.0 and (steps < 20 or rates[0] < 1.0)


def test_boxes_that_are_left_out_for_their_size_are_smaller_on_smaller_images() -> None:
    new = fitted(config('deimv2/deimv2_hgnetv2-atto_8xb16-500e_coco.py'), Wishes(size=96))
    assert values(new.train_dataloader.to_dict(), 'min_gt_bbox_wh') == [(4, 4), (4, 4)]  # 12 of 320
    for size in (320, 1280):
        new = fitted(config(DEIM), Wishes(size=size))
        assert set(values(new.train_dataloader.to_dict(), 'min_gt_bbox_wh')) == {(1, 1)}


def test_sizes_keep_their_ratios() -> None:
    new = fitted(config(DEIM), Wishes(size=320))
    loaders = [new[f'{split}_dataloader'].to_dict() for split in ('train', 'val', 'test')]
    assert values(loaders, 'scale') == [(320, 320)] * 3
    assert values(new.train_dataloader.to_dict(), 'short_side') == [160]
    (multi_scale,) = fitted(config(RTDETR), Wishes(size=320)).model.data_preprocessor.batch_augments
    # of 480, 512, 544, 576, 608, three times 640, 672, 704, 736, 768, 800
    assert multi_scale.sizes == [256, 256, 256, 288, 320, 320, 320, 320, 320, 352, 384, 384, 384]


def test_sizes_of_mmdets_own_pipelines() -> None:
    """DINO's images keep their ratio, at the longer side asked for; mosaics, crops and padding go with it."""
    new = fitted(config(DINO), Wishes(size=320))
    train, test = new.train_dataloader.to_dict(), new.test_dataloader.to_dict()
    several, before_crop, after_crop = values(train, 'scales')
    assert several[0] == (115, 320) and several[-1] == (192, 320)  # of 480, 800 and 1333
    assert test['dataset']['pipeline'][1]['scale'] == (320, 192)
    assert after_crop == several and before_crop == [(96, 1008), (120, 1008), (144, 1008)]  # of 400, 500, 600 and 4200
    assert values(train, 'crop_size') == [(92, 144)] and values(train, 'keep_ratio') == [True] * 3  # of 384 and 600
    rtmdet = fitted(config('rtmdet/rtmdet_s_hybrid-encoder_8xb32-300e_coco.py'), Wishes(size=320)).to_dict()
    loader, hooks = rtmdet['train_dataloader'], rtmdet['custom_hooks']
    assert values(loader, 'scale') == [(640, 640)] and values(hooks, 'scale') == [(320, 320)]  # the former of 1280
    for name in ('img_scale', 'crop_size', 'size'):
        assert set(values([loader, hooks], name)) == {(320, 320)}
    yolox = fitted(config('yolox/yolox_s_hybrid-encoder_8xb8-300e_coco.py'), Wishes(size=320)).to_dict()
    assert values(yolox['train_dataloader'], 'border') == [(-160, -160)]
    assert values(yolox['model'], 'random_size_range') == [(256, 384)]  # of 480 and 800, to whole strides


def test_the_rate_goes_with_the_batch() -> None:
    cfg = config(RTDETR)
    assert learning_rate(cfg) == 1e-4
    new = fitted(cfg, Wishes(batch=4))
    assert new.train_dataloader.batch_size == 4
    assert learning_rate(new) == pytest.approx(1e-4 * 4 / 16) and learning_rate(new, devices=8) == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ('name', 'wishes', 'message'),
    [
        (RTDETR, Wishes(size=100), '--size 100: name a multiple of 32, from 64 on'),
        (RTDETR, Wishes(size=32), '--size 32: name a multiple of 32, from 64 on'),
        (TWO_SCALES, Wishes(size=320), r'resizes images to one scale, and .* has the scales \[320, \(64, 64\)\]'),
        (RTDETR, Wishes(epochs=0), '--epochs 0: name at least 1'),
        (DEIM, Wishes(epochs=3), '--epochs: the augmentation of this config has 4 stages; train for at least 4 epochs'),
    ],
)
def test_what_cannot_be_is_said(name: str, wishes: Wishes, message: str) -> None:
    cfg = config(RTDETR if name is TWO_SCALES else name)
    if name is TWO_SCALES:
        cfg.test_dataloader.dataset.pipeline = [dict(type='Resize', scale=320), dict(type='Resize', scale=(64, 64))]
    with pytest.raises(InputError, match=message):
        fitted(cfg, wishes)

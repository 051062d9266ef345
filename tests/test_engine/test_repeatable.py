"""N + M steps are N steps, an end, and M more: bit for bit, wherever the end falls."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import DISTILLED, TINY_TEACHER
from mmdet.registry import MODELS
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import Runner
from runs import SMALL_MODEL, small_run
from torch.utils.data import DataLoader, Dataset

from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.datasets.seeded_batches import SeededBatch, SeededBatchSampler, seed_of

NUM_IMAGES, BATCH, SIZE = 8, 2, 32
AN_EPOCH = NUM_IMAGES // BATCH
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
RESIZE = dict(type='Resize', scale=(SIZE, SIZE), keep_ratio=False)
STRONG = [
    *LOAD,
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ToUint8'),
    RESIZE,
    dict(type='PackDetInputs'),
]
WEAK = [*LOAD, RESIZE, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]


class Stop(Hook):
    """Save after a step, as a kill right after a checkpoint would leave it."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.losses: list[float] = []
        self.numbers: list[int] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses.append(float(outputs['loss']))
        self.numbers.append(batch_idx)
        if runner.iter + 1 == self.step:
            meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
            runner.save_checkpoint(runner.work_dir, f'iter_{self.step}.pth', by_epoch=False, meta=meta)
            raise KeyboardInterrupt


def options(workers: int, by_epoch: bool) -> dict[str, Any]:
    """Two epochs' worth of everything that changes in a run: warm-up to step 6, strong augmentation to step 8, EMA."""
    loop = dict(type='EpochBasedTrainLoop', max_epochs=3) if by_epoch else dict(type='IterBasedTrainLoop', max_iters=12)
    hooks = [
        dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.01, gamma=5, update_buffers=True, priority=49),
    ]
    if by_epoch:
        hooks.append(dict(type='PipelineSwitchHook', switch_epoch=2, switch_pipeline=WEAK))
    sampler = dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True)
    return {
        'train_cfg': dict(_delete_=True, **loop),
        'train_dataloader.num_workers': workers,
        'train_dataloader.persistent_workers': workers > 0,
        'train_dataloader.sampler': sampler,
        'train_dataloader.dataset.pipeline': STRONG,
        'model.bbox_head.decoder.dropout': 0.1,
        'param_scheduler': [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=6)],
        'default_hooks.checkpoint': None,
        'custom_hooks': hooks,
        'randomness': dict(seed=None if by_epoch else 3),
    }


def staged_options(workers: int, by_epoch: bool, digits: Path) -> dict[str, Any]:
    """DEIM's: plain images, then mosaics of four and mixup, then plain ones, and copy-blend; by its curve of the rate.

    Boxes are matched by the quality cost from the second stage on.
    """
    mosaic = [[dict(type='QuarterMosaic', short_side=40)], [dict(type='ExpandAndCrop')]]
    in_mosaic = dict(type='InStages', stages=['mosaic'], transforms=[dict(type='RandomChoice', transforms=mosaic)])
    images = dict(
        type='CocoDataset',
        data_root=str(digits),
        metainfo=dict(classes=tuple('0123456789')),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=LOAD,
    )
    dataset = dict(_delete_=True, type='MultiImageDataset', dataset=images, pipeline=[in_mosaic, *WEAK[len(LOAD) :]])
    timetable, rate = [('plain', 0), ('mosaic', 1), ('plain', 2)], dict(flat_end=1, decay_end=2, end=3)
    if not by_epoch:
        timetable, rate = [('plain', 0), ('mosaic', 3), ('plain', 9)], dict(flat_end=4, decay_end=9, end=12)
    settings = options(workers, by_epoch)
    hooks = [
        settings['custom_hooks'][0],
        dict(type='AugmentationTimetableHook', timetable=timetable, by_epoch=by_epoch),
        dict(type='MatchingCostHook', begin=1 if by_epoch else 4, by_epoch=by_epoch),
    ]
    counts = dict(by_epoch=True, convert_to_iter_based=True) if by_epoch else dict(by_epoch=False)
    del settings['train_dataloader.dataset.pipeline']
    return {
        **settings,
        'train_dataloader.dataset': dataset,
        'model.data_preprocessor.batch_augments': [
            dict(type='BatchMixUp', prob=0.4, stages=['mosaic']),
            dict(type='BatchCopyBlend', prob=0.7, min_area=9),
        ],
        'model.bbox_head.criterion.assigner.quality_cost': dict(iou_power=4),
        'param_scheduler': [dict(type='FlatCosineLR', warmup_iters=3, gamma=0.5, **rate, **counts)],
        'custom_hooks': hooks,
    }


def distilling_options(folder: Path) -> dict[str, Any]:
    """A teacher of random weights, and a weight of its loss that a share of the gradients changes every four steps."""
    backbone = MODELS.build(TINY_TEACHER['model']['backbone'])
    weights = {f'backbone.{key}': value for key, value in backbone.state_dict().items()}
    torch.save({'state_dict': weights, 'meta': {}}, folder / 'teacher.pth')
    settings = options(0, by_epoch=False)
    shares = dict(type='GradientShareHook', rho=90.0, delta=1.0, default_weight=0.5, by_epoch=False, interval=4)
    return {
        **settings,
        **{f'model.{key.replace("__", ".")}': value for key, value in DISTILLED.items()},
        'model.data_preprocessor.teacher': {**TINY_TEACHER, 'checkpoint': str(folder / 'teacher.pth')},
        'custom_hooks': [settings['custom_hooks'][0], shares],
    }


def train(digits: Path, work_dir: Path, settings: dict[str, Any], stop: int, resume: Path | None = None) -> list:
    """Number in the epoch and loss of the steps up to ``stop``, whose checkpoint is in the work folder."""
    if resume is not None:
        settings = {**settings, 'resume': True, 'load_from': str(resume)}
    runner, hook = small_run(digits, work_dir, settings, SMALL_MODEL, image_size=SIZE), Stop(stop)
    runner.register_hook(hook, priority='VERY_LOW')
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    if runner.train_dataloader._iterator is not None:  # its queues close first where it is left to the collector, and
        runner.train_dataloader._iterator._shutdown_workers()  # each worker then waits five seconds for a last word
    return [*zip(hook.numbers, hook.losses)]


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=NUM_IMAGES, num_val=2, image_size=96, progress=False)


@pytest.mark.parametrize(
    ('by_epoch', 'workers', 'ends'),
    [(True, 0, [3, 6, 9]), (True, 2, [4, 10])],
    ids=['warm-up, strong and weak', 'workers, ends of epochs'],
)
def test_stopped_and_resumed_is_the_same_run(
    by_epoch: bool, workers: int, ends: list[int], digits: Path, tmp_path: Path
) -> None:
    """Weights, averaged weights, optimizer, losses of 11 steps, and their numbers in the epoch, for the log."""
    compare_with_a_whole_run(options(workers, by_epoch), ends, digits, tmp_path)


def test_iterations_and_a_distillation_are_the_same_after_resuming(digits: Path, tmp_path: Path) -> None:
    """Its projection, its weight, and the steps that count for the next weight: stopped after the first of them."""
    compare_with_a_whole_run(distilling_options(tmp_path), [5], digits, tmp_path)
    parts, whole = (torch.load(tmp_path / run / 'iter_11.pth', weights_only=True) for run in ('part_1', 'whole'))
    assert parts['gradient_share'] == whole['gradient_share']
    # tenfold twice, as 90 % is out of reach
    assert (whole['gradient_share']['weight'], whole['gradient_share']['steps']) == (500.0, 3)


@pytest.mark.parametrize(('by_epoch', 'workers', 'ends'), [(True, 2, [3, 6]), (False, 0, [5])], ids=['epochs', 'steps'])
def test_stages_of_augmentation_are_the_same_after_resuming(
    by_epoch: bool, workers: int, ends: list[int], digits: Path, tmp_path: Path
) -> None:
    compare_with_a_whole_run(staged_options(workers, by_epoch, digits), ends, digits, tmp_path)


def compare_with_a_whole_run(settings: dict[str, Any], ends: list[int], digits: Path, tmp_path: Path) -> None:
    """A run of 11 steps that was stopped at some, and one that was not."""
    losses, checkpoint = [], None
    for number, end in enumerate([*ends, 11]):
        losses += train(digits, tmp_path / f'part_{number}', settings, end, checkpoint)
        checkpoint = tmp_path / f'part_{number}' / f'iter_{end}.pth'
    parts = torch.load(checkpoint, weights_only=True)
    # by epoch, the first part drew a seed, and the others took it over
    settings['randomness'] = dict(seed=parts['meta']['seed'])
    expected = train(digits, tmp_path / 'whole', settings, 11)
    whole = torch.load(tmp_path / 'whole' / 'iter_11.pth', weights_only=True)
    assert losses == expected
    for kind in ('state_dict', 'ema_state_dict'):
        assert whole[kind].keys() == parts[kind].keys()
        assert all(torch.equal(tensor, parts[kind][key]) for key, tensor in whole[kind].items())
    for number, state in whole['optimizer']['state'].items():
        for key, value in state.items():
            assert torch.equal(value, parts['optimizer']['state'][number][key])
    assert whole['param_schedulers'] == parts['param_schedulers']


class Noise(Dataset):
    """What an augmentation would draw, and how often it was asked."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        drawn = [(random.random(), float(np.random.rand()), float(torch.rand(()))) for _ in range(index % 3 + 1)]
        return (index, *drawn[-1])


def stream(workers: int, *, epoch: int = 0, skip: int = 0, seed: int = 1) -> list[tuple]:
    sampler = DefaultSampler(Noise(), shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    batches = SeededBatchSampler(sampler, 2)
    loader = DataLoader(Noise(), batch_sampler=batches, num_workers=workers, collate_fn=list)
    batches.skip_batches(skip)
    return list(loader)


def test_random_numbers_depend_on_the_place_alone() -> None:
    expected = stream(0)
    assert [len(batch) for batch in expected] == [2, 2, 2, 1]
    numbers = [number for batch in expected for sample in batch for number in sample[1:]]
    assert len(set(numbers)) == len(numbers)
    assert stream(2) == expected, 'whatever the number of workers'
    assert stream(2, skip=2) == expected[2:], 'and wherever the epoch is entered'
    other = {number for batch in stream(0, epoch=1) for sample in batch for number in sample[1:]}
    assert other.isdisjoint(numbers)
    assert stream(0, seed=2) != expected


def test_batches_are_torchs() -> None:
    """Indices, lengths and the last batch; skipping lasts for one iteration; batches survive the way to a worker."""
    for drop_last in (False, True):
        sampler = DefaultSampler(Noise(), shuffle=True, seed=0)
        ours = SeededBatchSampler(sampler, 3, drop_last=drop_last)
        theirs = torch.utils.data.BatchSampler(sampler, 3, drop_last)
        expected = list(theirs)
        assert [batch[:] for batch in ours] == expected and len(ours) == len(theirs)
        ours.skip_batches(1)
        assert list(ours) == expected[1:] and list(ours) == expected
    batch = SeededBatch([4, 2], (1, 2))
    numbers = random.getstate(), tuple(np.random.get_state()[1]), torch.get_rng_state().tolist()
    arrived = pickle.loads(pickle.dumps(batch))
    assert arrived.seed_numbers == (1, 2) and arrived[:] == [4, 2] and isinstance(arrived, SeededBatch)
    after = random.getstate(), tuple(np.random.get_state()[1]), torch.get_rng_state().tolist()
    assert after == numbers, 'a data loader pickles it in a thread, beside the training'
    endless = iter(SeededBatchSampler(InfiniteSampler(Noise(), seed=0), 4))
    assert sorted(index for _ in range(7) for index in next(endless)[:]) == sorted(list(range(7)) * 4)


def test_seeds_are_spread() -> None:
    seeds = {
        seed_of(seed, epoch, rank, n) for seed in range(4) for epoch in range(4) for rank in range(4) for n in range(64)
    }
    assert len(seeds) == 4 * 4 * 4 * 64 and max(seeds) < 2**32
    assert seed_of(1, 23) != seed_of(12, 3)

"""The run's phases: inside the run and in order, or refused."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.models.layers import ExpMomentumEMA
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.optim import ConstantLR, CosineAnnealingLR, LinearLR, MultiStepLR
from tolerances import about
from torch import nn

from mmdet_iouquery import config_path
from mmdet_iouquery.datasets.stages import InStages
from mmdet_iouquery.engine import FlatCosineLR
from mmdet_iouquery.engine.hooks import AugmentationTimetableHook, ScheduleHook
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.data_preprocessors import BatchMixUp

GOLDEN = Path(__file__).parents[1] / 'data' / 'next_units.npz'


class Batches(list):
    """A data loader, as far as it is looked at."""

    dataset: Any = None


def runner(schedulers: Any, *, epochs: int, steps: int, hooks: tuple = ()) -> SimpleNamespace:
    lines: list[str] = []
    logger = SimpleNamespace(info=lines.append, lines=lines)
    return SimpleNamespace(
        param_schedulers=schedulers,
        max_epochs=epochs,
        max_iters=epochs * steps,
        iter=0,
        train_dataloader=Batches(range(steps)),
        model=nn.Identity(),
        hooks=hooks,
        logger=logger,
    )


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize('kind', [LinearLR, ConstantLR])
def test_a_warm_up_longer_than_the_run_is_refused(kind: Any) -> None:
    warm_up = kind(optimizer(), by_epoch=False, begin=0, end=2000)
    ScheduleHook().before_train(runner([warm_up], epochs=10, steps=200))
    text = rf'the warm-up \({kind.__name__}\) takes 2000 steps, but the run has 1990:.*at most to about 199'
    with pytest.raises(InputError, match=text):
        ScheduleHook().before_train(runner({'a': [warm_up]}, epochs=10, steps=199))
    by_epoch = kind(optimizer(), by_epoch=True, begin=0, end=3)
    with pytest.raises(InputError, match='takes 3 epochs, but the run has 2'):
        ScheduleHook().before_train(runner([by_epoch], epochs=2, steps=9999))


def test_the_phases_of_a_flat_cosine_are_told() -> None:
    phases = {'warmup_iters': 5, 'flat_end': 30, 'decay_end': 50, 'gamma': 0.5}
    kept = [
        FlatCosineLR(optimizer(), **phases, end=60, by_epoch=False),
        FlatCosineLR(optimizer(), warmup_iters=5, by_epoch=False, end=60),
    ]
    run = runner(kept, epochs=1, steps=60)
    ScheduleHook().before_train(run)
    _, falling, constant = run.logger.lines[0].splitlines()
    assert falling.endswith('of lr: steps 0 to 60, warm-up to 5, flat to 30, falling to 0.5 of it at 50')
    assert constant.endswith('steps 0 to 60, warm-up to 5, then flat')


def test_the_stages_of_augmentation_are_told() -> None:
    hook = AugmentationTimetableHook([('plain', 0), ('mosaic', 4), ('strong', 29), ('plain', 50)])
    run = runner(None, epochs=58, steps=1, hooks=(hook,))
    ScheduleHook().before_train(run)
    line = run.logger.lines[0].splitlines()[1]
    assert line.endswith('AugmentationTimetableHook: epochs, plain to 4, mosaic to 29, strong to 50, plain to 58')


def test_what_waits_for_a_stage_without_a_timetable_is_refused() -> None:
    run = runner(None, epochs=2, steps=1)
    run.train_dataloader.dataset = [InStages(stages=['mosaic'], transforms=[])]
    with pytest.raises(InputError, match=r"InStages waits for stage 'mosaic' .* add .*AugmentationTimetableHook"):
        ScheduleHook().before_train(run)
    run = runner(None, epochs=2, steps=1)
    run.model = nn.Sequential(BatchMixUp(stages=['mosaic']))
    with pytest.raises(InputError, match="BatchMixUp waits for stage 'mosaic'"):
        ScheduleHook().before_train(run)
    run.model = nn.Sequential(BatchMixUp())
    ScheduleHook().before_train(run)


def test_schedules_without_end_and_others_than_warm_ups_pass() -> None:
    sgd = optimizer()
    kept = [ConstantLR(sgd, factor=0.5), MultiStepLR(sgd, milestones=[100]), CosineAnnealingLR(sgd, T_max=500, end=500)]
    run = runner(kept, epochs=2, steps=3)
    ScheduleHook().before_train(run)
    assert 'CosineAnnealingLR of lr: epochs 0 to 2' in run.logger.lines[0]
    run = runner(None, epochs=1, steps=1)
    ScheduleHook().before_train(run)
    assert run.logger.lines == ['schedule: 1 steps']


@pytest.mark.parametrize('epochs', [1, 2, 3, 5, 12, 36, 72, 200])
def test_phases_lie_inside_the_run_and_follow_each_other(epochs: int) -> None:
    """As a config derives them from one number, for every length of the run."""
    sgd, steps = optimizer(), 40
    schedulers = [
        LinearLR(sgd, by_epoch=False, begin=0, end=10),
        CosineAnnealingLR(sgd, by_epoch=True, begin=epochs // 2, end=epochs, T_max=max(1, epochs - epochs // 2)),
    ]
    switches = (SimpleNamespace(switch_epoch=max(0, epochs - 2)), SimpleNamespace(num_last_epochs=1))
    run = runner(schedulers, epochs=epochs, steps=steps, hooks=switches)
    ScheduleHook().before_train(run)
    (text,) = run.logger.lines
    head, warm_up, cosine, switch, last = text.splitlines()
    assert head == f'schedule: {epochs * steps} steps' + (f', {epochs} epochs of {steps}' if epochs > 1 else '')
    assert warm_up.endswith('LinearLR of lr: steps 0 to 10')
    begin, end = map(int, re.search(r'epochs (\d+) to (\d+)', cosine).groups())
    assert (begin, end) == (epochs // 2, epochs)
    assert f'from epoch {max(0, epochs - 2)} on' in switch and f'from epoch {epochs - 1} on' in last


def test_what_never_begins_is_said() -> None:
    late = MultiStepLR(optimizer(), milestones=[9], begin=9, by_epoch=True)
    run = runner([late], epochs=5, steps=2, hooks=(SimpleNamespace(switch_epoch=7),))
    ScheduleHook().before_train(run)
    assert 'MultiStepLR of lr: never, as it begins at 9 of 5 epochs' in run.logger.lines[0]
    assert 'SimpleNamespace: never' in run.logger.lines[0]


def test_the_average_of_the_shipped_configs_is_the_papers() -> None:
    """Decay 0.9999 * (1 - exp(-step / 2000)), read back from what the average has become."""
    cfg = Config.fromfile(config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'))
    settings = next(hook for hook in cfg.custom_hooks if hook.type == 'EMAHook')
    assert settings.ema_type == 'ExpMomentumEMA'
    hook = EMAHook(ema_type='ExpMomentumEMA', momentum=settings.momentum, gamma=settings.gamma)
    assert f'momentum {settings.momentum}' in '\n'.join(phases_of(hook))
    model = nn.Linear(1, 1, bias=False).double()
    average = ExpMomentumEMA(model, momentum=settings.momentum, gamma=settings.gamma)
    average.update_parameters(model)  # the first time, it copies
    model.weight.data.fill_(1.0)
    for step in range(2, 10000):
        average.module.weight.data.fill_(0.0)
        average.update_parameters(model)
        decay = 1 - average.module.weight.item()
        assert decay == about(0.9999 * (1 - math.exp(-step / 2000)), 'doubles')


def test_the_average_of_d_fine_is_the_authors() -> None:
    """The decay at each update; the first one copies, where theirs keeps a thousandth of what was there."""
    golden = np.load(GOLDEN)
    cfg = Config.fromfile(config_path('dfine/dfine_hgnetv2-n_8xb16-160e_coco.py'))
    (settings,) = (hook for hook in cfg.custom_hooks if hook.type == 'EMAHook')
    model = nn.Linear(1, 1, bias=False).double()
    average = ExpMomentumEMA(model, momentum=settings.momentum, gamma=settings.gamma)
    model.weight.data.fill_(1.0)
    for update, decay in list(zip(golden['ema/updates'].tolist(), golden['ema/decay'].tolist()))[1:]:
        average.steps.fill_(update - 1)
        average.module.weight.data.fill_(0.0)
        average.update_parameters(model)
        assert 1 - average.module.weight.item() == about(decay, 'doubles'), update


@pytest.mark.parametrize(
    ('name', 'repeat'),
    [
        ('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', 3),
        ('dfine/dfine_hgnetv2-s_8xb4-132e_coco.py', 20),
        ('dfine/dfine_hgnetv2-m_8xb4-132e_coco.py', 6),
        ('dfine/dfine_hgnetv2-l_8xb4-80e_coco.py', 4),
        ('dfine/dfine_hgnetv2-x_8xb4-80e_coco.py', 3),
    ],
)
def test_batches_are_resized_to_the_authors_sizes(name: str, repeat: int) -> None:
    """Each as often as in their list, which is drawn from evenly."""
    (augment,) = Config.fromfile(config_path(name)).model.data_preprocessor.batch_augments
    assert sorted(augment.sizes) == sorted(np.load(GOLDEN)[f'scales/640_{repeat}'].tolist())


def phases_of(hook: EMAHook) -> list[str]:
    run = runner([], epochs=1, steps=1, hooks=(hook,))
    ScheduleHook().before_train(run)
    return run.logger.lines

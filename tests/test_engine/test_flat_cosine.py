"""DEIM's learning rate: the authors' curve, a step earlier; several groups; resumed; refused where it fits no run."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from tolerances import within
from torch import nn

from mmdet_iouquery.errors import InputError

GOLDEN = Path(__file__).parents[1] / 'data' / 'next_units.npz'
RATES = (5e-4, 2.5e-5)


def wrapper(*rates: float, kind: type = torch.optim.SGD) -> OptimWrapper:
    groups = [{'params': [nn.Parameter(torch.zeros(1))], 'lr': rate} for rate in rates]
    return OptimWrapper(kind(groups, lr=rates[0]))


def built(optimizer: OptimWrapper, epoch_length: int = 300, **settings: Any) -> Any:
    """As mmengine's Runner builds it."""
    cfg = {'type': 'FlatCosineLR', **settings}
    return PARAM_SCHEDULERS.build(cfg, default_args={'optimizer': optimizer, 'epoch_length': epoch_length})


def by_epoch(optimizer: OptimWrapper, **settings: Any) -> Any:
    own = {'warmup_iters': 2000, 'flat_end': 29, 'decay_end': 50, 'end': 58, 'convert_to_iter_based': True}
    return built(optimizer, **{**own, **settings})


def rates(optimizer: OptimWrapper, scheduler: Any, steps: int) -> list[list[float]]:
    """Each group's rate at every step."""
    history = []
    for _ in range(steps):
        history.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return history


@pytest.mark.parametrize('gamma', [0.5, 1.0])
def test_the_authors_curve(gamma: float) -> None:
    """Their function at iteration t is our rate at step t; they apply it after the step, so that theirs has t - 1's."""
    golden = np.load(GOLDEN)
    optimizer = wrapper(*RATES)
    history = rates(optimizer, by_epoch(optimizer, gamma=gamma), 58 * 300)
    iterations = golden['schedule/iterations']
    expected = golden[f'schedule/flatcosine_58x300_{gamma}']
    assert len(expected) == 15 and iterations.max() == 58 * 300 - 1
    ours = np.array(history)[iterations]
    np.testing.assert_allclose(ours[:, 0], expected, **within('doubles'))
    np.testing.assert_allclose(ours[:, 1], expected * RATES[1] / RATES[0], **within('doubles'))


def test_phases_by_hand() -> None:
    optimizer = wrapper(1.0)
    settings = {'warmup_iters': 4, 'flat_end': 6, 'decay_end': 10, 'gamma': 0.2, 'end': 12, 'by_epoch': False}
    history = [rate for (rate,) in rates(optimizer, built(optimizer, **settings), 14)]
    half = [0.2 + 0.8 * (1 + math.cos(math.pi * k / 4)) / 2 for k in (1, 2, 3)]
    assert history == pytest.approx([0, 1 / 16, 1 / 4, 9 / 16, 1, 1, 1, *half, 0.2, 0.2, 0.2, 0.2])
    assert half[1] == pytest.approx(0.6)


def test_a_rate_that_never_falls_and_one_without_warm_up() -> None:
    optimizer = wrapper(2.0)
    assert [rate for (rate,) in rates(optimizer, built(optimizer, warmup_iters=2, by_epoch=False), 5)] == [
        0,
        0.5,
        2,
        2,
        2,
    ]
    optimizer = wrapper(2.0)
    assert rates(optimizer, built(optimizer, flat_end=0, decay_end=1, by_epoch=False, gamma=0.25), 3) == [
        [2],
        [0.5],
        [0.5],
    ]


@pytest.mark.parametrize('at', [0, 1, 7, 20, 21, 87, 90, 150, 170])
def test_resumed_anywhere(at: int) -> None:
    """Optimizer and scheduler from a checkpoint: the next rates are those of the run that went on."""
    first, second = wrapper(*RATES), wrapper(*RATES)
    scheduler, resumed = (by_epoch(x, epoch_length=3, warmup_iters=20) for x in (first, second))
    rates(first, scheduler, at)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed.load_state_dict(scheduler.state_dict())
    assert rates(second, resumed, 40) == rates(first, scheduler, 40)


def test_the_momentum_follows_the_same_curve() -> None:
    optimizer = wrapper(1.0, kind=torch.optim.AdamW)
    scheduler = built(optimizer, type='FlatCosineMomentum', warmup_iters=2, by_epoch=False)
    betas = []
    for _ in range(4):
        betas.append(optimizer.param_groups[0]['betas'])
        optimizer.step()
        scheduler.step()
    assert betas == [(0.0, 0.999), (0.225, 0.999), (0.9, 0.999), (0.9, 0.999)]
    assert optimizer.param_groups[0]['lr'] == 1.0


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        (
            {'convert_to_iter_based': False},
            'changes at every step: let it count steps .*add convert_to_iter_based=True',
        ),
        ({'decay_end': 59}, r'decay_end \(17700 steps\) lies after the run \(17400 steps\); set it earlier'),
        ({'flat_end': 51}, r'flat_end \(15300 steps\) lies after decay_end \(15000 steps\)'),
        ({'warmup_iters': 8701}, r'its warm-up \(8701 steps\) lies after flat_end \(8700 steps\)'),
        ({'decay_end': None}, 'needs both flat_end and decay_end, or neither'),
        ({'flat_end': None, 'decay_end': None, 'warmup_iters': 17401}, 'its warm-up .17401 steps. lies after the run'),
        ({'gamma': -0.1}, 'gamma must be a number of at least 0'),
        ({'warmup_iters': 0.5}, 'warmup_iters must be at least 0 and a whole number'),
    ],
)
def test_what_fits_no_run_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        by_epoch(wrapper(1.0), **settings)

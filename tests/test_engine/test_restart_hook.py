"""Going back to the best checkpoint: weights and their average, also when resumed; refused where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from toy_run import EPOCH, CallAt, CountMetric, toy_runner

from mmdet_iouquery.engine.hooks import RestartHook
from mmdet_iouquery.errors import InputError

BEST = {'save_best': 'acc', 'rule': 'less', 'interval': 1}  # the first evaluation has the least


@pytest.fixture(autouse=True)
def _first_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountMetric, 'evaluations', 0)
    MessageHub._instance_dict.clear()  # it remembers the best of a run of the same name


class Weights(Hook):
    """The weights, and their average, at the beginning and at the end of each epoch."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.at: dict[str, tuple[float, float]] = {}

    def before_train_epoch(self, runner: Runner) -> None:
        self.at[f'{runner.epoch} begins'] = weights(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self.at[f'{runner.epoch} ends'] = weights(runner)


def weights(runner: Runner) -> tuple[float, float]:
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    return tuple(model.linear.weight[0, 0].item() for model in (runner.model, hook.ema_model.module))  # type: ignore


def trained(folder: Path, *hooks: Hook, epochs: int = 4, **more: Any) -> dict[str, tuple[float, float]]:
    noted = Weights()
    toy_runner(folder, *hooks, noted, by_epoch=True, length=epochs, validate=1, **BEST, **more).train()
    return noted.at


def test_weights_and_average_go_back_to_the_best(tmp_path: Path) -> None:
    """The best is that after the first epoch; without the hook training goes on from where it is. Epochs count on."""
    at = trained(tmp_path / 'with', RestartHook(epoch=3))
    assert at['3 begins'] == at['0 ends'] != at['2 ends']
    assert at['3 begins'][0] != at['3 begins'][1], 'the average is not the weights'
    assert at['2 begins'] == at['1 ends']
    assert [*at] == [f'{epoch} {when}' for epoch in range(4) for when in ('begins', 'ends')]
    assert torch.load(tmp_path / 'with' / 'epoch_4.pth', weights_only=True)['meta']['epoch'] == 4
    CountMetric.evaluations = 0
    without = trained(tmp_path / 'without')
    assert without['3 begins'] == without['2 ends'] == at['2 ends']


@pytest.mark.parametrize('step', [3 * EPOCH, 3 * EPOCH + 2], ids=['just before', 'within the epoch'])
def test_resumed_around_it(step: int, tmp_path: Path) -> None:
    """Saved before the restart, a run makes it; saved in the epoch that began with it, it does not go back again."""

    def stop(runner: Runner) -> None:
        meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
        runner.save_checkpoint(runner.work_dir, f'iter_{step}.pth', by_epoch=False, meta=meta)
        raise KeyboardInterrupt

    whole = trained(tmp_path / 'whole', RestartHook(epoch=3))
    CountMetric.evaluations = 0
    first = toy_runner(tmp_path / 'first', RestartHook(epoch=3), by_epoch=True, length=4, validate=1, **BEST)
    within = step > 3 * EPOCH
    ends = CallAt('after_train_iter', step - 1, stop) if within else CallAt('before_train_epoch', 3, interrupt)
    first.register_hook(ends, priority='VERY_HIGH')
    with pytest.raises(KeyboardInterrupt):
        first.train()
    (tmp_path / 'first').rename(tmp_path / 'moved')
    checkpoint = tmp_path / 'moved' / (f'iter_{step}.pth' if within else 'epoch_3.pth')
    resumed = trained(tmp_path / 'moved', RestartHook(epoch=3), resume=checkpoint)
    if within:
        average = torch.load(checkpoint, weights_only=True)['state_dict']['linear.weight'][0, 0].item()
        assert resumed['3 begins'][1] == average != whole['3 begins'][1]
    else:
        assert resumed['3 begins'] == whole['3 begins'] and resumed['3 ends'] == whole['3 ends']


def interrupt(runner: Runner) -> None:
    raise KeyboardInterrupt


def test_a_run_that_keeps_no_best_checkpoint_is_refused(tmp_path: Path) -> None:
    runner = toy_runner(tmp_path, RestartHook(epoch=1), by_epoch=True, length=2, validate=1)
    with pytest.raises(InputError, match='the best checkpoint, and the run keeps none; set'):
        runner.train()


@pytest.mark.parametrize('length', [1, 2])
def test_an_epoch_that_never_comes_is_refused(length: int, tmp_path: Path) -> None:
    runner = toy_runner(tmp_path, RestartHook(epoch=2), by_epoch=True, length=length, validate=1, **BEST)
    with pytest.raises(InputError, match='the run has no epoch 2, counted from 0; name one before its end'):
        runner.train()


def test_no_evaluation_before_it(tmp_path: Path) -> None:
    runner = toy_runner(tmp_path, RestartHook(epoch=1), by_epoch=True, length=2, validate=2, **BEST)
    with pytest.raises(InputError, match='at epoch 1, and there is none yet; let an evaluation come before'):
        runner.train()

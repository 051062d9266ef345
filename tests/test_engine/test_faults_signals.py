"""A signal ends training after the running iteration, with a checkpoint from which it goes on unchanged."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner
from toy_run import EPOCH, CallAt, toy_runner

from mmdet_iouquery.engine.hooks import StopOnSignalHook
from mmdet_iouquery.engine.resume import latest_checkpoint
from mmdet_iouquery.errors import InputError, TrainingStopped

SIGNALS = ('SIGTERM', 'SIGUSR1', 'SIGINT')


def send(name: str) -> Any:
    return lambda runner: os.kill(os.getpid(), signal.Signals[name])


def stopped(runner: Runner) -> TrainingStopped:
    before = {name: signal.getsignal(signal.Signals[name]) for name in SIGNALS}
    with pytest.raises(TrainingStopped) as caught:
        runner.train()
    assert {name: signal.getsignal(signal.Signals[name]) for name in SIGNALS} == before, 'handlers are left behind'
    return caught.value


def content(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_equal_training(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Weights, moving average, optimiser and schedule, bit for bit."""
    for name in ('state_dict', 'ema_state_dict'):
        assert actual[name].keys() == expected[name].keys()
        assert all(torch.equal(actual[name][key], expected[name][key]) for key in actual[name]), name
    for state, expected_state in zip(actual['optimizer']['state'].values(), expected['optimizer']['state'].values()):
        assert all(torch.equal(state[key], expected_state[key]) for key in state)
    assert actual['optimizer']['param_groups'] == expected['optimizer']['param_groups']
    assert actual['param_schedulers'] == expected['param_schedulers']


@pytest.mark.parametrize('name', SIGNALS)
@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_running_iteration_is_finished_and_saved(name: str, by_epoch: bool, tmp_path: Path) -> None:
    """Seven iterations of ten: the second epoch, of four, is then over but for one."""
    stop = stopped(toy_runner(tmp_path, CallAt('before_train_iter', 6, send(name)), by_epoch=by_epoch, length=10))
    assert stop.code == 128 + signal.Signals[name]
    path = tmp_path / 'iter_7.pth'
    assert str(stop) == f'stopped by {name} after iteration 7; saved {path}, from which it can be resumed'
    meta = content(path)['meta']
    assert (meta['iter'], meta['epoch']) == (7, 1 if by_epoch else 0)
    assert latest_checkpoint(tmp_path) == path and (tmp_path / 'last_checkpoint').read_text() == str(path)


def test_going_on_gives_what_an_uninterrupted_training_gives(tmp_path: Path) -> None:
    toy_runner(tmp_path / 'whole', by_epoch=False, length=10).train()
    parts = tmp_path / 'parts'
    stopped(toy_runner(parts, CallAt('after_train_iter', 3, send('SIGTERM')), by_epoch=False, length=10))
    toy_runner(parts, by_epoch=False, length=10, resume=parts / 'iter_4.pth').train()
    assert_equal_training(content(parts / 'iter_10.pth'), content(tmp_path / 'whole' / 'iter_10.pth'))


def test_at_the_end_of_an_epoch_the_epoch_counts(tmp_path: Path) -> None:
    last = CallAt('before_train_iter', EPOCH - 1, send('SIGTERM'))
    stop = stopped(toy_runner(tmp_path, last, by_epoch=True, length=3))
    meta = content(tmp_path / 'epoch_1.pth')['meta']
    assert (meta['epoch'], meta['iter']) == (1, EPOCH) and 'after iteration 4; saved' in str(stop)
    toy_runner(tmp_path, by_epoch=True, length=3, resume=tmp_path / 'epoch_1.pth').train()
    assert content(tmp_path / 'epoch_3.pth')['meta']['iter'] == 3 * EPOCH


def test_what_was_saved_just_then_is_not_saved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    original = Runner.save_checkpoint
    monkeypatch.setattr(Runner, 'save_checkpoint', lambda *a, **k: (saved.append(a[2]), original(*a, **k)))
    stop = stopped(
        toy_runner(tmp_path, CallAt('before_train_iter', 3, send('SIGTERM')), by_epoch=False, length=9, interval=2)
    )
    assert saved == ['iter_2.pth', 'iter_4.pth'] and f'saved {tmp_path / "iter_4.pth"}' in str(stop)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth*'))


def test_the_extra_checkpoint_goes_when_the_next_one_is_there(tmp_path: Path) -> None:
    """And the list of those that CheckpointHook keeps never has it."""
    settings: dict[str, Any] = {'by_epoch': False, 'interval': 2, 'max_keep_ckpts': 2}
    stopped(toy_runner(tmp_path, CallAt('before_train_iter', 6, send('SIGTERM')), length=12, **settings))
    assert checkpoints(tmp_path) == ['iter_4.pth', 'iter_6.pth', 'iter_7.pth']
    seen = []
    look = [CallAt('before_train_iter', at, lambda _: seen.append(checkpoints(tmp_path))) for at in (0, 1)]
    toy_runner(tmp_path, *look, length=12, resume=tmp_path / 'iter_7.pth', **settings).train()
    assert seen == [['iter_4.pth', 'iter_6.pth', 'iter_7.pth.outdated'], ['iter_6.pth', 'iter_8.pth']]
    assert checkpoints(tmp_path) == ['iter_10.pth', 'iter_12.pth']
    assert content(tmp_path / 'iter_12.pth')['message_hub']['runtime_info']['keep_ckpt_ids'] == [10, 12]


def test_in_a_validation_whose_steps_are_saved_it_stops_at_once(tmp_path: Path) -> None:
    reached = CallAt('before_val_iter', 2, lambda _: pytest.fail('the validation went on'))
    signalled = CallAt('before_val_iter', 1, send('SIGTERM'))
    stop = stopped(toy_runner(tmp_path, signalled, reached, by_epoch=True, length=3, validate=1, interval=1))
    assert f'after iteration 4; saved {tmp_path / "epoch_1.pth"}' in str(stop)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_in_a_validation_whose_steps_are_not_saved_it_ends_the_validation_first(by_epoch: bool, tmp_path: Path) -> None:
    """What is saved are the trained weights and their average, each in its place, though validation swaps them."""
    toy_runner(tmp_path / 'whole', by_epoch=False, length=EPOCH).train()
    runner = toy_runner(
        tmp_path,
        CallAt('before_val_iter', 1, send('SIGTERM')),
        by_epoch=by_epoch,
        length=3 if by_epoch else 3 * EPOCH,
        validate=1 if by_epoch else EPOCH,
        interval=2 * EPOCH,
    )
    stop = stopped(runner)
    path = tmp_path / ('epoch_1.pth' if by_epoch else 'iter_4.pth')
    assert f'after iteration 4; saved {path}' in str(stop)
    saved = content(path)
    assert (saved['meta']['iter'], saved['meta']['epoch']) == (EPOCH, 1 if by_epoch else 0)
    assert_equal_training(saved, content(tmp_path / 'whole' / f'iter_{EPOCH}.pth'))


@pytest.mark.parametrize('by_epoch', [True, False])
def test_in_the_last_iteration_training_ends_as_ever(by_epoch: bool, tmp_path: Path) -> None:
    last = CallAt('before_train_iter', 2 * EPOCH - 1, send('SIGTERM'))
    toy_runner(tmp_path, last, by_epoch=by_epoch, length=2 if by_epoch else 2 * EPOCH, validate=2).train()
    assert checkpoints(tmp_path) == ['epoch_2.pth' if by_epoch else 'iter_8.pth']


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def twice(runner: Runner) -> None:
        send('SIGINT')(runner)
        send('SIGINT')(runner)

    with pytest.raises(KeyboardInterrupt):
        toy_runner(tmp_path, CallAt('before_train_iter', 1, twice), by_epoch=False, length=5).train()
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize('signals', ['SIGTERM', ['SIGTREM'], ['SIGKILL']])
def test_what_is_no_signal_to_stop_at_is_refused(signals: Any) -> None:
    with pytest.raises(InputError, match='must be a list of some of SIGTERM'):
        StopOnSignalHook(signals=signals)

"""The progress bar and the transform that the recipe adds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import HOOKS, TRANSFORMS

from mmdet_iouquery.engine.hooks.progress_hook import closed_progress


def test_progress_counts_steps_and_shows_loss_and_ap(capsys: pytest.CaptureFixture[str]) -> None:
    hook = HOOKS.build({'type': 'ProgressHook'})
    runner = SimpleNamespace(rank=0, max_iters=30, iter=9)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, outputs={'loss': torch.tensor(2.345, requires_grad=True)})
    hook.after_val_epoch(runner, {'coco/bbox_mAP': 0.4321})
    assert hook.bar.n == 10 and hook.bar.total == 30
    hook.after_train(runner)
    shown = capsys.readouterr().err
    assert 'loss=2.3' in shown and 'AP=0.432' in shown and '10/30' in shown


def test_the_bar_of_a_training_that_fails_ends_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    hook = HOOKS.build({'type': 'ProgressHook'})
    runner = SimpleNamespace(rank=0, max_iters=30, iter=0, hooks=[hook])
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    assert not capsys.readouterr().err.endswith('\n')
    with pytest.raises(ZeroDivisionError), closed_progress(runner):
        raise ZeroDivisionError
    assert capsys.readouterr().err.endswith('\n') and hook.bar.disable


def test_progress_is_silent_on_other_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    hook = HOOKS.build({'type': 'ProgressHook'})
    runner = SimpleNamespace(rank=1, max_iters=30, iter=0)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    hook.after_val_epoch(runner, {})
    hook.after_train(runner)
    assert capsys.readouterr().err == ''


def test_to_uint8_rounds_and_clips() -> None:
    image = np.array([[[-3.0, 0.4, 0.6], [254.5, 255.4, 300.0]]], np.float32)
    result = TRANSFORMS.build({'type': 'ToUint8'})({'img': image})['img']
    assert result.dtype == np.uint8 and result.tolist() == [[[0, 0, 1], [254, 255, 255]]]

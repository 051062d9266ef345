"""Training under bfloat16 autocast, on any device."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from runs import small_run
from torch import nn

from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.compat import native
from mmdet_iouquery.engine import BFloat16OptimWrapper
from mmdet_iouquery.engine.launch import _enable_amp
from mmdet_iouquery.errors import InputError


def test_forward_in_bfloat16_step_in_single_precision() -> None:
    """Products are rounded to bfloat16, weights and gradients are not, and nothing is scaled."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    wrapper = BFloat16OptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.25))
    x = torch.full((1, 1), 1 + 2.0**-10)  # bfloat16 has no such number
    with wrapper.optim_context(layer):
        y = layer(x)
    assert y.dtype == torch.bfloat16 and y.item() == 1.0
    assert layer(x).dtype == torch.float32, 'the context is over'
    wrapper.update_params(y.float().sum())
    assert layer.weight.dtype == torch.float32
    assert layer.weight.item() == 0.75  # the gradient is x, rounded to 1


def test_the_log_says_once_that_this_processor_is_slow_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, logged = nn.Linear(1, 1), []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'log', lambda level, text: logged.append((level, text)))
    for is_fast in (True, False):
        monkeypatch.setattr(native, 'computes_fast', lambda _, is_fast=is_fast: is_fast)
        wrapper = BFloat16OptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.25))
        for _ in range(2):
            with wrapper.optim_context(layer):
                layer(torch.ones(1, 1))
    text = 'bfloat16 will take several times as long as float32: this CPU has no instructions for it; '
    assert logged == [(logging.WARNING, f'{text}train in float32 (no --amp), or on a GPU')]


def test_options() -> None:
    cfg = Config({'optim_wrapper': {'type': 'OptimWrapper'}})
    _enable_amp(cfg, 'bfloat16')
    assert cfg.optim_wrapper == {'type': 'BFloat16OptimWrapper'}
    if torch.cuda.is_available():
        _enable_amp(cfg, 'float16')
        assert cfg.optim_wrapper == {'type': 'AmpOptimWrapper', 'loss_scale': 'dynamic'}
    else:
        with pytest.raises(InputError, match=r'--amp .float16. needs a CUDA device.*--amp bfloat16'):
            _enable_amp(cfg, 'float16')


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order, however busy the machine is: another one tips other queries in or out in bfloat16."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures('one_thread')
def test_a_training_follows_that_in_single_precision(tmp_path: Path) -> None:
    """Losses of two steps from the same weights, on the same images, within the roundings of 8 bits."""
    root = build_digits(tmp_path / 'digits', num_train=4, num_val=2, image_size=96, progress=False)
    losses = {}
    for kind in ('OptimWrapper', 'BFloat16OptimWrapper'):
        options = {'train_cfg.max_iters': 2, 'optim_wrapper.type': kind, 'randomness': dict(seed=0)}
        runner = small_run(root, tmp_path / kind, {**options, 'default_hooks.checkpoint': None})
        runner.train()
        losses[kind] = torch.from_numpy(runner.message_hub.get_scalar('train/loss').data[0])
    assert losses['OptimWrapper'].shape == (2,)
    assert not torch.equal(*losses.values())
    plain, half = losses.values()
    # a changed matching or choice of queries moves single terms by more than the roundings; the second step's weights
    # differ besides, as AdamW moves those of almost no gradient by its sign: 0.043 and 0.08 at most over twenty seeds;
    # twice as much is allowed, as another processor rounds otherwise and so is another seed
    assert (half - plain).abs()[0] <= 0.09 * plain[0] and (half - plain).abs()[1] <= 0.16 * plain[1]

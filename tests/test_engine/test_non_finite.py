"""Inf and NaN are caught before they reach the weights, and traced to module, step and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from runs import SMALL_MODEL, small_run
from torch import Tensor, nn

from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.engine.hooks import NonFiniteHook
from mmdet_iouquery.engine.non_finite import (
    gradients_are_finite,
    is_finite,
    origin_in_backward,
    origin_in_forward,
    tensors_of,
)
from mmdet_iouquery.errors import NonFiniteError

BROKEN = 'bbox_head.decoder.layers.1.linear2'


class _NaNGradient(torch.autograd.Function):
    """The identity, whose gradient is NaN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, torch.nan)


class Inject(Hook):
    """Break the model in some steps, and note what each step saw and left."""

    def __init__(self, steps: set[int], *, backward: bool = False) -> None:
        self.steps, self.backward = steps, backward
        self.broken = False
        self.images: list[list[str]] = []
        self.weights: list[Tensor] = []

    def before_train(self, runner: Runner) -> None:
        runner.model.get_submodule(BROKEN).register_forward_hook(self.breaks)
        self.note(runner)

    def note(self, runner: Runner) -> None:
        state = [*runner.model.parameters(), *runner.model.buffers()]
        self.weights.append(torch.cat([tensor.detach().float().flatten() for tensor in state]))

    def breaks(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if not self.broken:
            return None
        return _NaNGradient.apply(output) if self.backward else output.index_fill(1, torch.tensor([0]), torch.inf)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.broken = runner.iter + 1 in self.steps
        self.images.append([sample.img_path for sample in data_batch['data_samples']])

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.broken = False
        self.note(runner)


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=6, num_val=2, image_size=96, progress=False)


def runner_with(digits: Path, work_dir: Path, hook: Hook, **settings: Any) -> Runner:
    options = {
        'train_cfg.max_iters': 4,
        'model.bbox_head.decoder.num_layers': 2,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.non_finite': dict(type='NonFiniteHook', **settings),
        'randomness': dict(seed=0),
    }
    runner = small_run(digits, work_dir, options, SMALL_MODEL, image_size=32)
    runner.register_hook(hook, priority='LOWEST')
    return runner


@pytest.mark.parametrize('backward', [False, True], ids=['forward', 'backward'])
def test_a_broken_step_stops_the_run(backward: bool, digits: Path, tmp_path: Path) -> None:
    """Module, step and images are named; weights and buffers are those of the step before, checkpoints untouched."""
    inject = Inject({3}, backward=backward)
    runner = runner_with(digits, tmp_path / 'run', inject)
    with pytest.raises(NonFiniteError) as caught:
        runner.train()
    text = str(caught.value)
    assert text.startswith('step 3: gradients are not finite. It begins in ')
    assert f'Images: {", ".join(inject.images[2])}.' in text
    reason = 'it hands on a gradient that is not, given a finite one' if backward else 'numbers it gives are inf or NaN'
    assert f'{BROKEN} (Linear): ' in text and reason in text
    parameters = torch.cat([p.detach().flatten() for p in runner.model.parameters()])
    assert torch.equal(parameters, inject.weights[2][: len(parameters)])
    assert sorted(path.name for path in (tmp_path / 'run').glob('*.pth')) == ['iter_1.pth', 'iter_2.pth']


def test_skipping_leaves_no_trace(digits: Path, tmp_path: Path) -> None:
    """Weights and the batch norms' statistics do not move in that step; the next one does."""
    inject = Inject({2})
    runner = runner_with(digits, tmp_path / 'run', inject, action='skip')
    runner.train()
    assert torch.equal(inject.weights[2], inject.weights[1])
    assert is_finite(inject.weights) and not torch.equal(inject.weights[3], inject.weights[2])
    assert runner.message_hub.get_scalar('train/skipped_steps').data[0].tolist() == [1.0, 1.0, 1.0]
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'step 2 is left out: gradients are not finite. It begins in ' + BROKEN in log


def test_too_many_skipped_steps_stop_the_run(digits: Path, tmp_path: Path) -> None:
    runner = runner_with(digits, tmp_path / 'run', Inject({2, 3}), action='skip', max_skipped=2)
    with pytest.raises(NonFiniteError, match=r'step 3: .*So it was in 2 steps in a row'):
        runner.train()


def test_broken_weights_are_not_written(digits: Path, tmp_path: Path) -> None:
    """As after a step far too large, whose gradients were finite."""

    class Explode(Hook):
        def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            if runner.iter + 1 == 2:
                runner.model.neck.input_proj[0].conv.weight.data.mul_(torch.inf)

    runner = runner_with(digits, tmp_path / 'run', Explode())
    runner.hooks.sort(key=lambda hook: not isinstance(hook, Explode))
    with pytest.raises(
        NonFiniteError, match=r'neck.input_proj.0.conv.weight is not finite in the weights, so no check'
    ):
        runner.train()
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == ['iter_1.pth']


def test_a_loss_that_is_not_finite_stops_the_run(digits: Path, tmp_path: Path) -> None:
    runner = runner_with(digits, tmp_path / 'run', Hook())
    runner.model.register_forward_hook(
        lambda _, __, losses: {**losses, 'loss_new': losses['loss_cls'].detach() * torch.inf}
    )
    with pytest.raises(NonFiniteError, match=r'step 1: loss, loss_new not finite, though the gradients are'):
        runner.train()


def test_steps_that_a_loss_scaler_leaves_out_keep_no_images(digits: Path, tmp_path: Path) -> None:
    """Such a step never reaches the optimizer; what was remembered of it goes all the same."""
    kept: list[int] = []

    class LeaveOut(Hook):
        def before_train(self, runner: Runner) -> None:
            runner.optim_wrapper.step = lambda **_: None

        def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            kept.append(len(next(hook for hook in runner.hooks if isinstance(hook, NonFiniteHook))._calls))

    runner_with(digits, tmp_path / 'run', LeaveOut()).train()
    assert kept == [0, 0, 0, 0]


@pytest.mark.parametrize('settings', [dict(action='ignore'), dict(max_skipped=0)])
def test_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        NonFiniteHook(**settings)


class Chain(nn.Module):
    """Two layers with a function between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        return {'y': [self.second(self.first(x).log())]}


def test_origins() -> None:
    """A layer's output, its weights, or what happens between layers."""
    chain, x = Chain(), torch.rand(3, 2)
    with torch.no_grad():
        for layer in (chain.first, chain.second):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
    assert origin_in_forward(chain, lambda: chain(x + 1)) is None
    actual = origin_in_forward(chain, lambda: chain(x - 5))
    assert actual == 'what enters second (Linear), though every module before gave finite numbers'
    large = torch.tensor([[3e38, 1.0]])
    with torch.no_grad():
        chain.first.weight.mul_(2)
    actual = origin_in_forward(chain, lambda: chain(large))
    assert actual == 'first (Linear): 1 of 2 numbers it gives are inf or NaN; it was given at most 3e+38'
    with torch.no_grad():
        chain.first.bias[0] = torch.nan
    assert origin_in_forward(chain, lambda: chain(x)) == 'first (Linear): its bias is not finite'
    assert not any(module._forward_hooks for module in chain.modules())


def test_origin_of_a_gradient() -> None:
    """The square root of 0 has an infinite gradient, which meets the first layer alone."""
    chain = Chain()

    def loss() -> Tensor:
        return chain.second(torch.ones(1, 2)).sum() + (chain.first(torch.zeros(1, 2)) * 0).sqrt().sum()

    actual = origin_in_backward(chain, loss)
    assert actual == 'the gradient of first.weight', 'born between modules'
    assert not gradients_are_finite(chain.parameters())
    assert origin_in_backward(chain, lambda: chain.second(torch.ones(1, 2)).sum()) is None
    assert gradients_are_finite(chain.parameters())


def test_tensors_in_nests() -> None:
    x = torch.ones(2)
    assert len(list(tensors_of({'a': [x, (x, None)], 'b': torch.ones(2, dtype=torch.long), 'c': 'text'}))) == 2
    assert is_finite([x]) and not is_finite([x, {'y': x / 0}])
    assert gradients_are_finite([]) and gradients_are_finite([nn.Parameter(x)])

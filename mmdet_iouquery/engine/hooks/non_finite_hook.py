"""Inf and NaN: caught before they reach the weights, and traced to where they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from ...errors import NonFiniteError
from ..non_finite import gradients_are_finite, is_finite, origin_in_backward, origin_in_forward

ACTIONS = ('stop', 'skip')


class _Call(NamedTuple):
    """One forward pass of training: enough to run it again."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    random_state: Tensor


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Look at the gradients before the optimizer uses them; where they are not finite, say where that began.

    The forward pass is then run again, module by module, on the same images and with the same random numbers, and the
    message names the step, the module and the images. Nothing of such a step reaches the weights. A loss that is not
    finite stops the run even where its gradients are finite, and so do weights that are not when a checkpoint is to be
    written, which then is not.

    While all is well it costs a norm over all gradients a step, and one number read from the device. Several processes
    have the same gradients, so they decide alike without a word between them. A loss scaler (float16) leaves out steps
    whose scaled gradients overflow by itself; this hook sees only the others.

    Args:
        action: 'stop', or 'skip': leave the step out, write that to the log, count it there as ``skipped_steps``, and
            go on. Statistics of batch norms are put back to what they were before the step.
        max_skipped: so many skipped steps in a row stop the run all the same.

    Raises:
        ValueError: an unknown ``action``, or ``max_skipped`` below 1.
    """

    def __init__(self, action: str = 'stop', max_skipped: int = 10) -> None:
        if action not in ACTIONS:
            raise ValueError(f'action must be one of {ACTIONS}, got {action!r}')
        if max_skipped < 1:
            raise ValueError(f'max_skipped must be at least 1, got {max_skipped}')
        self.action = action
        self.max_skipped = max_skipped
        self.skipped = 0
        self._in_a_row = 0
        self._calls: list[_Call] = []
        self._buffers: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        self._tracing = False

    def before_train(self, runner: Runner) -> None:
        optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
        if optimizer is None:
            runner.logger.warning('NonFiniteHook: several optimizers, or none of torch: gradients are not looked at')
            return
        model = _bare(runner.model)
        self._handles = [
            model.register_forward_pre_hook(self._remember, with_kwargs=True),
            optimizer.register_step_pre_hook(lambda *_: self._before_step(runner, optimizer)),
        ]

    def after_train(self, runner: Runner) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._calls, self._buffers = [], [], {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Tensor] | None = None
    ) -> None:
        """A loss that is not finite although its gradients are has done no harm yet; but it says nothing any more."""
        broken = [name for name, loss in (outputs or {}).items() if not is_finite(loss)]
        if broken and not self._in_a_row:
            self._end(runner, f'{", ".join(broken)} not finite, though the gradients are')
        if self.skipped:
            runner.message_hub.update_scalar('train/skipped_steps', self.skipped)
        if runner.optim_wrapper.should_update():  # a loss scaler may have left the step out: nothing is kept for later
            self._calls = []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        for name, tensor in checkpoint['state_dict'].items():
            if not is_finite(tensor):
                self._end(runner, f'{name} is not finite in the weights, so no checkpoint was written')

    def _remember(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not model.training or self._tracing:
            return
        self._calls.append(_Call(args, kwargs, torch.get_rng_state()))
        if self.action == 'skip' and len(self._calls) == 1:
            self._buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def _before_step(self, runner: Runner, optimizer: torch.optim.Optimizer) -> None:
        calls, self._calls = self._calls, []
        if gradients_are_finite(p for group in optimizer.param_groups for p in group['params']):
            self._in_a_row = 0
            return
        self._tracing = True
        text = f'gradients are not finite. {self._trace(runner, calls)}'
        self._tracing = False
        self._in_a_row += 1
        if self.action == 'stop':
            self._end(runner, text)
        if self._in_a_row == self.max_skipped:
            self._end(runner, f'{text}. So it was in {self.max_skipped} steps in a row')
        self.skipped += 1
        runner.logger.warning(f'step {runner.iter + 1} is left out: {text}')
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in _bare(runner.model).named_buffers():
                buffer.copy_(self._buffers[name])

    def _trace(self, runner: Runner, calls: list[_Call]) -> str:
        """Where it began, and on which images, by running the step's passes again: the same ones in every process."""
        model = _bare(runner.model)
        for call in calls:
            with _as_before(model, call), runner.optim_wrapper.optim_context(runner.model):
                origin = origin_in_forward(model, partial(model, *call.args, **call.kwargs))
            if not _in_any_process(origin is not None):
                with _as_before(model, call):
                    origin = origin_in_backward(model, _loss_of(runner, model, call))
            if _in_any_process(origin is not None):
                where = f'It begins in {origin}' if origin else 'It did not begin in this process'
                return f'{where}. Images: {_images(call)}'
        return f'It did not happen again. Images: {", ".join(map(_images, calls))}'

    def _end(self, runner: Runner, text: str) -> None:
        raise NonFiniteError(
            f'step {runner.iter + 1}: {text}. The weights are those of the step before, and checkpoints that were '
            f'written stay as they are; go on from the newest with --resume and a lower learning rate, with --amp '
            "bfloat16 in place of float16, or without such steps: default_hooks.non_finite.action='skip'"
        )


def _loss_of(runner: Runner, model: nn.Module, call: _Call) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with runner.optim_wrapper.optim_context(runner.model):
            losses = model(*call.args, **call.kwargs)
        return model.parse_losses(losses)[0]  # type: ignore[operator]

    return run


def _in_any_process(flagged: bool) -> bool:
    flag = torch.tensor(float(flagged))
    all_reduce(flag, 'max')
    return bool(flag)


@contextmanager
def _as_before(model: nn.Module, call: _Call) -> Iterator[None]:
    """The random numbers of a call, and the model's buffers put back afterwards."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng():
        torch.set_rng_state(call.random_state)
        yield
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def _images(call: _Call) -> str:
    samples = call.kwargs.get('data_samples') or (call.args[1] if len(call.args) > 1 else ())
    names = [str(sample.metainfo.get('img_path', sample.metainfo.get('img_id', '?'))) for sample in samples]
    return ', '.join(names)


def _bare(model: nn.Module) -> nn.Module:
    """A model without its distributed wrapper."""
    return getattr(model, 'module', model)

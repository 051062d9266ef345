"""The weight of a distillation, by what it is to change: RT-DETRv4's gradient-guided adaptive modulation (GAM)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ...argument_checks import check_counts, check_flags, check_numbers
from ...errors import InputError
from ...models.data_preprocessors import DistillingDataPreprocessor

_KEY = 'gradient_share'
_NO_SHARE = 1e-6
"""Per cent."""
_MOST_CHANGE = 10.0


class ShareRule(NamedTuple):
    """What the weight becomes when a share of the gradients was measured. Shares are in per cent."""

    rho: float
    delta: float
    default_weight: float

    def weight(self, weight: float, share: float) -> float:
        """The weight by which the share would come into ``rho`` +- ``delta``, were the other gradients to stay.

        A share outside is to come to the further bound: a weight w gives the odds p / (1 - p), which grow with it.
        """
        if share < _NO_SHARE:
            return self.default_weight
        low, high = self.rho - self.delta, self.rho + self.delta
        if low <= share <= high or weight <= _NO_SHARE:
            return weight
        now, wanted = share / 100, (high if share < low else low) / 100
        factor = wanted * (1 - now) / (now * (1 - wanted)) if now < 1 else 0.0
        return weight * min(max(factor, 1 / _MOST_CHANGE), _MOST_CHANGE)


@HOOKS.register_module()
class GradientShareHook(Hook):
    """Change the weight of ``loss_distill`` between epochs, until some of the model has its share of the gradients.

    The share of a step is 100 * L1(gradients of ``module``) / L1(all gradients), that of an epoch its mean over the
    steps. Both are of the gradients that the optimizer is given: added up over batches, without a loss scaler's factor,
    clipped to a norm; the authors' are so with AMP, and not yet clipped without it. Neither changes the share. Nothing
    is read from the device but once an epoch. All processes take the mean of their shares, so all have the same weight.

    A run that is resumed, in the middle of an epoch too, goes on with the weight and the steps that it had. The log has
    both as ``distill_weight`` and ``gradient_share``.

    Args:
        rho: what share ``module`` is to have, in per cent.
        delta: by how much the share may differ from it.
        default_weight: where ``module`` has no gradients, and from ``default_from`` on.
        default_from: the epoch, counted from 0, from which the weight is ``default_weight``; None: never. The authors'
            code sets it after the first epoch without strong augmentation.
        module: part of the model, by its name in it.
        by_epoch: False: ``default_from`` and ``interval`` count steps.
        interval: epochs, or steps, between changes.

    Raises:
        InputError: an argument is none of these. Before training: ``default_from`` or ``interval`` is outside the run;
            the model has no ``DistillingDataPreprocessor``, no such module, or one without parameters; or the optimizer
            is not a single one of torch's.
    """

    priority = 'LOW'  # after NonFiniteHook, which may leave a step out

    def __init__(
        self,
        *,
        rho: float,
        delta: float,
        default_weight: float,
        default_from: int | None = None,
        module: str = 'neck.encoder',
        by_epoch: bool = True,
        interval: int = 1,
    ) -> None:
        check_numbers(most=100, rho=rho)
        check_numbers(most=min(rho, 100 - rho), delta=delta)
        check_numbers(default_weight=default_weight)
        check_flags(by_epoch=by_epoch)
        check_counts(interval=interval)
        if default_from is not None:
            check_counts(least=0, default_from=default_from)
        self.rule = ShareRule(rho, delta, default_weight)
        self.default_from = default_from
        self.module = module
        self.by_epoch = by_epoch
        self.interval = interval
        self._resumed: dict[str, float] = {}
        self._sum: Tensor | float = 0.0
        self._steps = 0
        self._loss: Any = None
        self._handle: Any = None

    @property
    def unit(self) -> str:
        """What ``default_from`` and ``interval`` count."""
        return 'epochs' if self.by_epoch else 'steps'

    def phases(self, total: int) -> str:
        """What the weight goes by, for a log."""
        rule, end = self.rule, total if self.default_from is None else self.default_from
        share = f'{rule.rho:g} +- {rule.delta:g} % of the gradients for {self.module} to {end}'
        return share if end == total else f'{share}, weight {rule.default_weight:g} to {total}'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        self._resumed = checkpoint.get(_KEY, {})

    def before_train(self, runner: Runner) -> None:
        self._check_times(runner.max_epochs if self.by_epoch else runner.max_iters)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._loss = self._loss_of(model)
        optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
        if optimizer is None:
            raise InputError(
                f'{type(self).__name__} reads the gradients of a single optimizer of torch, and the run has another '
                'kind; leave the hook out'
            )
        own, others = _gradients_of(model, self.module)
        self._handle = optimizer.register_step_pre_hook(lambda *_: self._measure(own, others))
        if runner.iter:  # resumed
            self._sum, self._steps = self._resumed.get('sum', 0.0), int(self._resumed.get('steps', 0))
            self._loss.loss_weight = self._resumed.get('weight', self._loss.loss_weight)
        self._default_at(runner.epoch if self.by_epoch else runner.iter)
        runner.message_hub.update_scalar('train/distill_weight', self._loss.loss_weight)

    def after_train(self, runner: Runner) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Tensor] | None = None
    ) -> None:
        if not self.by_epoch:
            self._change(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch:
            self._change(runner, runner.epoch + 1)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if self._loss is not None:
            weight = float(self._loss.loss_weight)
            checkpoint[_KEY] = {'weight': weight, 'sum': float(self._sum), 'steps': float(self._steps)}

    def _check_times(self, total: int) -> None:
        """Raise :class:`InputError` unless both are in a run of ``total`` epochs or steps."""
        if self.default_from is not None and self.default_from >= total:
            raise InputError(
                f'{type(self).__name__}: default_from is {self.default_from} of {total} {self.unit}; let it be in the '
                'run, or leave it out'
            )
        if self.interval > total:
            raise InputError(
                f'{type(self).__name__}: interval is {self.interval}, and the run has {total} {self.unit}, in which '
                'the weight would never change; set it to less, or leave the hook out'
            )

    def _loss_of(self, model: nn.Module) -> Any:
        preprocessor = getattr(model, 'data_preprocessor', None)
        if not isinstance(preprocessor, DistillingDataPreprocessor):
            raise InputError(
                f'{type(self).__name__} changes the weight of a distillation, and the model has none; leave it out, or '
                "name model.data_preprocessor=dict(type='DistillingDataPreprocessor', ...)"
            )
        return preprocessor.loss_distill

    def _measure(self, own: list[nn.Parameter], others: list[nn.Parameter]) -> None:
        inside, outside = _l1(own), _l1(others)
        whole = inside + outside
        if isinstance(whole, Tensor):  # else the step was left out
            self._sum = self._sum + 100 * inside / whole.clamp(min=torch.finfo(whole.dtype).tiny)
            self._steps += 1

    def _change(self, runner: Runner, done: int) -> None:
        """After ``done`` epochs or steps."""
        if done % self.interval or not self._steps:
            return
        before, share = self._loss.loss_weight, self._mean_share()
        self._loss.loss_weight = self.rule.weight(before, share)
        self._default_at(done)
        weight = self._loss.loss_weight
        runner.logger.info(
            f'{self.module} had {share:.3g} % of the gradients; '
            f'weight of the distillation: {before:.4g} -> {weight:.4g}'
        )
        runner.message_hub.update_scalar('train/gradient_share', share)
        runner.message_hub.update_scalar('train/distill_weight', weight)

    def _mean_share(self) -> float:
        """Of the steps since the last change, the same in every process."""
        mean = torch.as_tensor(self._sum, dtype=torch.float32) / max(self._steps, 1)
        self._sum, self._steps = 0.0, 0
        all_reduce(mean, 'mean')
        return float(mean)

    def _default_at(self, done: int) -> None:
        if self.default_from is not None and done >= self.default_from:
            self._loss.loss_weight = self.rule.default_weight


def _gradients_of(model: nn.Module, module: str) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trained parameters of a module of the model, and all others."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    own = [name for name in trained if name.startswith(f'{module}.')]
    if not own:
        raise InputError(
            f'GradientShareHook: module={module!r} has no parameters that are trained; name a part of the model that '
            'has, such as neck.encoder'
        )
    return [trained[name] for name in own], [trained[name] for name in trained if name not in own]


def _l1(parameters: Iterable[nn.Parameter]) -> Tensor | float:
    """The sum of the absolute values of all gradients; a plain 0: there are none."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients, norm_type=1.0) if gradients else 0.0

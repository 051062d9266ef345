"""The weight of a distillation by a share of the gradients: the authors' rule, what is measured, and when it counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import TINY_TEACHER
from mmengine.model import BaseModel
from tolerances import about
from torch import nn

from mmdet_iouquery.engine.hooks import GradientShareHook
from mmdet_iouquery.engine.hooks.gradient_share_hook import ShareRule
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.data_preprocessors import DistillingDataPreprocessor

S = ShareRule(rho=11, delta=1, default_weight=20)
AT_8_PERCENT = 5 * (0.12 * 0.92) / (0.08 * 0.88)


@pytest.mark.parametrize(
    ('weight', 'share', 'expected'),
    [
        (5, 8, AT_8_PERCENT),  # 7.84: below, so to the upper bound
        (5, 15, 5 * (0.10 * 0.85) / (0.15 * 0.90)),  # above, so to the lower one
        (5, 10, 5),
        (5, 12, 5),
        (5, 0.1, 50),  # at most tenfold
        (5, 90, 0.5),  # at least a tenth
        (5, 100, 0.5),
        (5, 1e-7, 20),  # no gradients at all
        (0, 8, 0),
    ],
)
def test_the_rule(weight: float, share: float, expected: float) -> None:
    assert S.weight(weight, share) == pytest.approx(expected)


def test_the_worked_example() -> None:
    assert round(S.weight(5, 8), 2) == 7.84


class Tiny(BaseModel):
    """A model of three numbers beside the projection, as parts of a detector would be called."""

    def __init__(self, distils: bool = True) -> None:
        part = DistillingDataPreprocessor(teacher=TINY_TEACHER, student='neck', student_channels=1, teacher_channels=1)
        super().__init__(data_preprocessor=part if distils else None)
        self.neck = nn.ModuleDict({'encoder': nn.Linear(1, 1)})
        self.head = nn.Linear(1, 1, bias=False)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        raise NotImplementedError


class Run:
    """As much of a runner as the hook looks at; steps are taken with gradients that are given."""

    def __init__(self, model: nn.Module, hook: GradientShareHook, *, at: tuple[int, int] = (0, 0)) -> None:
        self.scalars: dict[str, float] = {}
        self.lines: list[str] = []
        self.model, self.hook = model, hook
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        self.runner: Any = SimpleNamespace(
            model=model,
            optim_wrapper=SimpleNamespace(optimizer=self.optimizer),
            epoch=at[0],
            iter=at[1],
            max_epochs=132,
            max_iters=1320,
            logger=SimpleNamespace(info=self.lines.append),
            message_hub=SimpleNamespace(update_scalar=self.scalars.__setitem__),
        )

    def begin(self) -> Run:
        self.hook.before_train(self.runner)
        return self

    def step(self, inside: float, outside: float) -> None:
        """L1 of the encoder's gradients, spread over two parameters and signs, and of all others."""
        encoder, head = self.model.neck['encoder'], self.model.head
        encoder.weight.grad, encoder.bias.grad = torch.full((1, 1), -0.25 * inside), torch.full((1,), 0.75 * inside)
        head.weight.grad = torch.full((1, 1), -1.0 * outside)
        self.optimizer.step()
        self.hook.after_train_iter(self.runner, 0)
        self.runner.iter += 1

    def end_epoch(self) -> None:
        self.hook.after_train_epoch(self.runner)
        self.runner.epoch += 1

    @property
    def weight(self) -> float:
        return self.model.data_preprocessor.loss_distill.loss_weight


def test_the_weight_follows_the_mean_share_of_an_epoch() -> None:
    """6 % and 10 % are 8 %, however large the gradients are (a loss scaler, a clipped norm)."""
    run = Run(Tiny(), GradientShareHook(rho=11, delta=1, default_weight=20)).begin()
    assert run.scalars == {'train/distill_weight': 5.0}
    run.step(0.06, 0.94)
    run.step(10 * 1024, 90 * 1024)
    assert run.weight == 5.0
    run.end_epoch()
    assert run.weight == about(AT_8_PERCENT, 'sum')
    assert run.scalars == about({'train/distill_weight': AT_8_PERCENT, 'train/gradient_share': 8.0}, 'sum')
    assert run.lines == ['neck.encoder had 8 % of the gradients; weight of the distillation: 5 -> 7.841']
    run.step(0.11, 0.89)  # the epoch before counts no more
    run.end_epoch()
    assert run.weight == about(AT_8_PERCENT, 'sum')
    run.step(0.0, 1.0)
    run.end_epoch()
    assert run.weight == 20


def test_a_step_that_was_left_out_is_none() -> None:
    run = Run(Tiny(), GradientShareHook(rho=11, delta=1, default_weight=20)).begin()
    run.step(0.08, 0.92)
    run.optimizer.zero_grad()
    run.optimizer.step()
    run.end_epoch()
    assert run.scalars['train/gradient_share'] == pytest.approx(8.0)
    run.optimizer.step()
    run.end_epoch()
    assert run.weight == about(AT_8_PERCENT, 'sum'), 'an epoch without a step says nothing'


def test_the_default_weight_counts_from_its_epoch_on() -> None:
    run = Run(Tiny(), GradientShareHook(rho=11, delta=1, default_weight=20, default_from=2)).begin()
    weights = []
    for _ in range(3):
        weights.append(run.weight)
        run.step(0.08, 0.92)
        run.end_epoch()
    assert weights == about([5, AT_8_PERCENT, 20], 'sum') and run.weight == 20
    assert Run(Tiny(), run.hook, at=(2, 2)).begin().weight == 20, 'also where a run begins there'


def test_counted_by_steps() -> None:
    run = Run(Tiny(), GradientShareHook(rho=11, delta=1, default_weight=20, by_epoch=False, interval=2)).begin()
    run.step(0.06, 0.94)
    assert run.weight == 5
    run.step(0.10, 0.90)
    assert run.weight == about(AT_8_PERCENT, 'sum')
    run.end_epoch()
    assert run.weight == about(AT_8_PERCENT, 'sum')


def test_a_resumed_run_has_the_weight_and_the_steps_so_far(tmp_path: Path) -> None:
    """And one that only loads weights has neither."""
    first = Run(Tiny(), GradientShareHook(rho=11, delta=1, default_weight=20)).begin()
    first.step(0.08, 0.92)
    first.end_epoch()
    first.step(0.06, 0.94)
    checkpoint: dict[str, Any] = {}
    first.hook.before_save_checkpoint(first.runner, checkpoint)
    torch.save(checkpoint, tmp_path / 'iter_2.pth')
    first.step(0.20, 0.80)
    first.end_epoch()

    again = Run(Tiny(), GradientShareHook(rho=11, delta=1, default_weight=20), at=(1, 2))
    again.hook.after_load_checkpoint(again.runner, torch.load(tmp_path / 'iter_2.pth', weights_only=True))
    again.begin()
    assert again.weight == about(AT_8_PERCENT, 'sum')
    again.step(0.20, 0.80)
    again.end_epoch()
    assert again.weight == first.weight == about(AT_8_PERCENT * (0.10 * 0.87) / (0.13 * 0.90), 'sum')

    anew = Run(Tiny(), GradientShareHook(rho=11, delta=1, default_weight=20))
    anew.hook.after_load_checkpoint(anew.runner, checkpoint)
    assert anew.begin().weight == 5


def test_its_phases() -> None:
    hook = GradientShareHook(rho=3.5, delta=0.25, default_weight=15, default_from=91)
    assert hook.phases(102) == '3.5 +- 0.25 % of the gradients for neck.encoder to 91, weight 15 to 102'
    hook.default_from = None
    assert hook.phases(50) == '3.5 +- 0.25 % of the gradients for neck.encoder to 50'
    assert (hook.unit, GradientShareHook(rho=1, delta=1, default_weight=1, by_epoch=False).unit) == ('epochs', 'steps')


def test_what_it_cannot_do_is_refused_before_training() -> None:
    settings = {'rho': 11, 'delta': 1, 'default_weight': 20}
    with pytest.raises(InputError, match=r'the model has none; leave it out, or name model\.data_preprocessor=dict'):
        Run(Tiny(distils=False), GradientShareHook(**settings)).begin()
    for module in ('neck.enc', 'neck.encoder.weight', 'neck.conv'):
        with pytest.raises(InputError, match=f"module='{module}' has no parameters that are trained; name a part"):
            Run(Tiny(), GradientShareHook(**settings, module=module)).begin()
    without = Run(Tiny(), GradientShareHook(**settings))
    without.runner.optim_wrapper = SimpleNamespace()
    with pytest.raises(InputError, match='a single optimizer of torch, and the run has another kind; leave the hook'):
        without.begin()


@pytest.mark.parametrize(('by_epoch', 'total', 'unit'), [(True, 132, 'epochs'), (False, 1320, 'steps')])
def test_times_outside_the_run_are_refused_before_training(by_epoch: bool, total: int, unit: str) -> None:
    settings = {'rho': 11, 'delta': 1, 'default_weight': 20, 'by_epoch': by_epoch}
    Run(Tiny(), GradientShareHook(**settings, default_from=total - 1, interval=total)).begin()
    message = f'GradientShareHook: default_from is {total} of {total} {unit}; let it be in the run, or leave it out'
    with pytest.raises(InputError, match=f'^{message}$'):
        Run(Tiny(), GradientShareHook(**settings, default_from=total)).begin()
    message = f'interval is {total + 1}, and the run has {total} {unit}, in which the weight would never change; set it'
    with pytest.raises(InputError, match=message):
        Run(Tiny(), GradientShareHook(**settings, interval=total + 1)).begin()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'rho': 101}, r'rho must lie in \[0, 100\]'),
        ({'delta': 12}, r'delta must lie in \[0, 11\]'),
        ({'default_weight': -1}, 'default_weight must be a number of at least 0'),
        ({'interval': 0}, 'interval must be at least 1'),
        ({'default_from': 2.5}, 'default_from must be at least 0'),
        ({'by_epoch': 1}, 'by_epoch must be True or False'),
    ],
)
def test_arguments_are_looked_at(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GradientShareHook(**{'rho': 11, 'delta': 1, 'default_weight': 20, **changes})

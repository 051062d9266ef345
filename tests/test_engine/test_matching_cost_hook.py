"""The late cost of matching: from its epoch or step on, wherever a run begins; told, and refused where it can't be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hosts import host_config
from mmdet.registry import HOOKS, MODELS, TASK_UTILS
from mmengine.config import ConfigDict
from torch import nn

from mmdet_iouquery.engine.hooks import MatchingCostHook, ScheduleHook
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.dense_heads.rtdetr_head import CRITERION
from mmdet_iouquery.models.losses import PerImageAssigner
from mmdet_iouquery.structures import Predictions, Targets

LATE = {'type': 'BatchedHungarianAssigner', 'quality_cost': {'iou_power': 4}}


def criterion(**assigner: Any) -> nn.Module:
    return MODELS.build({**CRITERION, 'assigner': {**CRITERION['assigner'], **assigner}})


def runner(model: nn.Module, *, epochs: int = 6, steps: int = 10, hooks: tuple = ()) -> Any:
    lines: list[str] = []
    return SimpleNamespace(
        model=model,
        max_epochs=epochs,
        max_iters=epochs * steps,
        epoch=0,
        iter=0,
        hooks=hooks,
        param_schedulers=None,
        logger=SimpleNamespace(info=lines.append, lines=lines),
    )


def one_step(hook: MatchingCostHook, run: Any, *, epoch: int, iteration: int) -> None:
    run.epoch, run.iter = epoch, iteration
    hook.before_train_iter(run, 0)


def who_answers(model: Any) -> int:
    """The query that a box is matched with: 0 is sure and beside it, 1 unsure and on it."""
    predictions = Predictions(
        torch.tensor([[[[4.0], [-2.0]]]]), torch.tensor([[[[0.62, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]]]])
    )
    targets = Targets(torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), (1,))
    return model.assigner(predictions, targets).query.item()


def test_from_its_epoch_on_the_other_query_answers() -> None:
    """By the first costs 2 * -3.9 + 5 * 0.12 - 2 * 0.25 for query 0; by the other 0.98 * 0.25^4 against 0.12."""
    model, hook = criterion(quality_cost={'iou_power': 4}), MatchingCostHook(begin=2)
    run = runner(nn.Sequential(model))
    assert who_answers(model) == 0, 'also before a training says anything'
    hook.before_train(run)
    answers = []
    for epoch in range(4):
        for iteration in (10 * epoch, 10 * epoch + 9):
            one_step(hook, run, epoch=epoch, iteration=iteration)
            answers.append(who_answers(model))
    assert answers == [0] * 4 + [1] * 4
    assert run.logger.lines == ['matching by the quality cost, after 2 epochs']


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('resumed_at', [19, 20, 35])
def test_a_resumed_run_matches_as_it_would_have(by_epoch: bool, resumed_at: int) -> None:
    model = criterion(quality_cost={})
    hook, run = MatchingCostHook(begin=2 if by_epoch else 20, by_epoch=by_epoch), runner(model)
    hook.before_train(run)
    one_step(hook, run, epoch=resumed_at // 10, iteration=resumed_at)
    assert who_answers(model) == int(resumed_at >= 20)
    hook.before_train(run)  # the same objects, for a training from the beginning
    one_step(hook, run, epoch=0, iteration=0)
    assert who_answers(model) == 0


def test_all_matchings_and_wrapped_models() -> None:
    """Of two criteria in a model that is wrapped as for several devices; one without the cost stays."""
    models = [criterion(quality_cost={'iou_power': 4}), criterion(quality_cost={'iou_power': 2}), criterion()]
    hook, run = MatchingCostHook(begin=0), runner(nn.DataParallel(nn.ModuleList(models)))
    hook.before_train(run)
    one_step(hook, run, epoch=0, iteration=0)
    assert [who_answers(model) for model in models] == [1, 1, 0]


def test_mmdets_detectors_take_the_assigner() -> None:
    """In ``train_cfg``: a host's criterion uses it as it is, and the hook finds it."""
    cfg = host_config('DINO', sigmoid=True, type='IoUQueryDINO')
    cfg.train_cfg = ConfigDict(assigner=LATE)
    model = MODELS.build(cfg)
    hook, run = MatchingCostHook(begin=1), runner(model)
    hook.before_train(run)
    for epoch, answers in ((0, 0), (1, 1)):
        one_step(hook, run, epoch=epoch, iteration=0)
        assert who_answers(model.criterion) == answers
    plain = MODELS.build(host_config('DINO', sigmoid=True, type='IoUQueryDINO', quality='giou'))
    assert isinstance(plain.criterion.assigner, PerImageAssigner)


def test_refused_outside_the_run_and_without_a_cost() -> None:
    model = criterion(quality_cost={'iou_power': 4})
    MatchingCostHook(begin=5).before_train(runner(model))
    with pytest.raises(
        InputError, match='MatchingCostHook has begin=6, and the run has 6 epochs, counted from 0; set it to a lower'
    ):
        MatchingCostHook(begin=6).before_train(runner(model))
    with pytest.raises(InputError, match='begin=60, and the run has 60 steps'):
        MatchingCostHook(begin=60, by_epoch=False).before_train(runner(model))
    with pytest.raises(InputError, match=r'no assigner with a quality_cost .* quality_cost=dict\(iou_power=4\)'):
        MatchingCostHook(begin=1).before_train(runner(criterion()))


def test_a_cost_that_nothing_switches_on_is_refused_and_the_phases_are_told() -> None:
    class Batches(list):
        dataset: Any = ()

    def first_log_line(model: nn.Module, *hooks: Any) -> str:
        run = runner(model, hooks=hooks)
        run.train_dataloader = Batches(range(10))
        ScheduleHook().before_train(run)
        return run.logger.lines[0]

    late = criterion(quality_cost={'iou_power': 4})
    with pytest.raises(InputError, match=r"quality_cost, but nothing says .* add dict\(type='MatchingCostHook'"):
        first_log_line(late)
    first_log_line(criterion())
    text = first_log_line(late, HOOKS.build({'type': 'MatchingCostHook', 'begin': 4}))
    assert text.endswith('MatchingCostHook: epochs, quality cost of matching from 4 to 6')
    text = first_log_line(late, MatchingCostHook(begin=4, by_epoch=False))
    assert text.endswith('MatchingCostHook: steps, quality cost of matching from 4 to 60')


@pytest.mark.parametrize(
    ('kind', 'settings', 'text'),
    [
        (HOOKS, {'type': 'MatchingCostHook', 'begin': -1}, 'begin must be at least 0 and a whole number'),
        (HOOKS, {'type': 'MatchingCostHook', 'begin': 2.5}, 'begin must be at least 0 and a whole number'),
        (HOOKS, {'type': 'MatchingCostHook', 'begin': 2, 'by_epoch': 1}, 'by_epoch must be True or False'),
        (TASK_UTILS, {**LATE, 'quality_cost': 4}, r'quality_cost must be dict\(iou_power=...\), or None, got 4'),
        (TASK_UTILS, {**LATE, 'quality_cost': {'power': 4}}, r'quality_cost must be dict\(iou_power=...\)'),
        (TASK_UTILS, {**LATE, 'quality_cost': {'iou_power': -1}}, 'iou_power must be a number of at least 0'),
    ],
)
def test_arguments_out_of_range(kind: Any, settings: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        kind.build(settings)

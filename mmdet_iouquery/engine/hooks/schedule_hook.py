"""What a run's schedule comes to, before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from ...errors import InputError
from ...models.losses.assigners import with_quality_cost
from ..flat_cosine import FlatCosineParamScheduler
from .augmentation_timetable_hook import AugmentationTimetableHook, waiting
from .gradient_share_hook import GradientShareHook
from .matching_cost_hook import MatchingCostHook

_WARM_UPS = ('Linear', 'Constant')
_FOREVER = int(1e9)  # mmengine's default of ``end``


@HOOKS.register_module()
class ScheduleHook(Hook):
    """Write the phases of a run to the log, and refuse a warm-up that is longer than the run.

    Phases are the parameter schedulers', those of hooks that switch something at an epoch, and the beginning of an
    exponential moving average.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Before anything else.

        Raises:
            InputError: a linear or constant schedule from the run's beginning does not end in it. Not for a run that
                goes on from a checkpoint, whose schedules end where they did. Or: something is for some stages of the
                training, or an assigner has a ``quality_cost``, and there is no ``AugmentationTimetableHook``, or
                ``MatchingCostHook``.
        """
        for scheduler in _schedulers(runner):
            total, unit = _length(runner, scheduler)
            kind = type(scheduler).__name__
            longer = scheduler.begin == 0 and total < scheduler.end < _FOREVER
            if runner.iter == 0 and kind.startswith(_WARM_UPS) and longer:
                raise InputError(
                    f'the warm-up ({kind}) takes {scheduler.end} {unit}, but the run has {total}: it would end before '
                    f'its learning rate is reached; set its end in param_scheduler, at most to about '
                    f'{max(1, total // 10)}'
                )
        _check_stages(runner)
        _check_quality_cost(runner)
        epochs = len(runner.train_dataloader)
        of_epochs = f', {runner.max_epochs} epochs of {epochs}' if runner.max_epochs > 1 else ''
        runner.logger.info('\n'.join([f'schedule: {runner.max_iters} steps{of_epochs}', *_phases(runner)]))


def _phases(runner: Runner) -> Iterator[str]:
    for scheduler in _schedulers(runner):
        total, unit = _length(runner, scheduler)
        kind = f'{type(scheduler).__name__} of {scheduler.param_name}'
        if scheduler.begin >= total:
            yield f'  {kind}: never, as it begins at {scheduler.begin} of {total} {unit}'
        else:
            inner = scheduler.phases() if isinstance(scheduler, FlatCosineParamScheduler) else ''
            yield f'  {kind}: {unit} {scheduler.begin} to {min(scheduler.end, total)}{inner}'
    for hook in runner.hooks:
        name = type(hook).__name__
        if isinstance(hook, (AugmentationTimetableHook, GradientShareHook, MatchingCostHook)):
            yield f'  {name}: {hook.unit}, {hook.phases(runner.max_epochs if hook.by_epoch else runner.max_iters)}'
        for key in ('switch_epoch', 'num_last_epochs'):
            value = getattr(hook, key, None)
            if isinstance(value, int):
                epoch = value if key == 'switch_epoch' else runner.max_epochs - value
                yield f'  {name}: ' + (f'from epoch {epoch} on' if epoch < runner.max_epochs else 'never')
        if isinstance(hook, EMAHook):
            settings = ', '.join(
                f'{key} {value}' for key, value in hook.ema_cfg.items() if key in ('momentum', 'gamma')
            )
            yield f'  {name} ({hook.ema_cfg["type"]}): {settings}'


def _check_stages(runner: Runner) -> None:
    if any(isinstance(hook, AugmentationTimetableHook) for hook in runner.hooks):
        return
    for waiter, stages in waiting(runner):
        raise InputError(
            f'{waiter} waits for stage {stages[0]!r} of the training, but nothing says when that is: add '
            f"dict(type='AugmentationTimetableHook', timetable=[('plain', 0), ({stages[0]!r}, 4), ...]) to custom_hooks"
        )


def _check_quality_cost(runner: Runner) -> None:
    switched = any(isinstance(hook, MatchingCostHook) for hook in runner.hooks)
    if not switched and any(with_quality_cost(runner.model)):
        raise InputError(
            'the assigner has a quality_cost, but nothing says from when on it counts: add '
            "dict(type='MatchingCostHook', begin=EPOCH) to custom_hooks, or leave quality_cost out"
        )


def _schedulers(runner: Runner) -> Iterator[Any]:
    groups = runner.param_schedulers
    for group in groups.values() if isinstance(groups, dict) else [groups or []]:
        yield from group


def _length(runner: Runner, scheduler: Any) -> tuple[int, str]:
    return (runner.max_epochs, 'epochs') if scheduler.by_epoch else (runner.max_iters, 'steps')

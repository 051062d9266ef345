"""A config's training set to another length, with all that hangs on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from ...config_options import as_list
from ...errors import InputError

# What a parameter scheduler counts in steps or epochs, and what in steps even if all else is in epochs.
_TIMES = ('begin', 'end', 'T_max', 'step_size', 'milestones', 'periods', 'total_steps', 'flat_end', 'decay_end')
_STEPS = ('warmup_iters',)
_FOREVER = int(1e9)  # mmengine's default of ``end``
_LONGEST_WARM_UP = 0.1  # of the steps


def set_iters(cfg: Config, iters: int, evaluations: int) -> None:
    """Train ``cfg`` for ``iters`` steps, with ``evaluations`` evaluations at equal distances, the last at the end.

    An epoch-based config becomes an iter-based one. Schedules, the stages of an ``AugmentationTimetableHook``, the
    beginning of a ``MatchingCostHook`` and the times of a ``GradientShareHook`` are stretched with the length of the
    training; only what an epoch-based config counts in steps (a warm-up) keeps its steps, or takes a tenth of them if
    it was longer. A phase that would be left with fewer than two steps is dropped. A checkpoint is written at each
    evaluation, and the last one kept.

    Raises:
        InputError: a parameter scheduler can't be set to another length.
    """
    loop = cfg.train_cfg
    by_epoch = loop.get('by_epoch', 'max_epochs' in loop)
    before = loop.get('max_epochs' if by_epoch else 'max_iters')
    if not before:
        raise InputError(f'{cfg.filename}: train_cfg has neither max_epochs nor max_iters; give it one')
    interval = math.ceil(iters / evaluations)
    cfg.train_cfg = ConfigDict(type='IterBasedTrainLoop', max_iters=iters, val_interval=interval)
    if cfg.get('param_scheduler') is not None:
        cfg.param_scheduler = _stretched(cfg, by_epoch, before, iters)
    in_steps = dict(
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=interval, max_keep_ckpts=1)),
        log_processor=dict(type='LogProcessor', by_epoch=False),
    )
    cfg.merge_from_dict(in_steps)
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('type') == 'AugmentationTimetableHook':
            hook.update(timetable=_timetable(hook.timetable, before, iters), by_epoch=False)
        if hook.get('type') == 'MatchingCostHook':
            hook.update(begin=hook.begin * iters // before, by_epoch=False)
        if hook.get('type') == 'GradientShareHook':
            hook.update(interval=max(1, hook.get('interval', 1) * iters // before), by_epoch=False)
            if hook.get('default_from') is not None:
                hook.default_from = hook.default_from * iters // before
    if by_epoch:
        _leave_epochs(cfg)


def _timetable(timetable: Sequence[Sequence[Any]], before: int, iters: int) -> list[tuple[str, int]]:
    """The stages of an augmentation, each begun in the run; of those that begin at one step the last is left."""
    begins = {begin * iters // before: name for name, begin in timetable}
    return [(name, begin) for begin, name in begins.items()]


def _leave_epochs(cfg: Config) -> None:
    """What else counts epochs: the sampler, and hooks, which can't be helped and are named."""
    sampler: Any = cfg.train_dataloader.get('sampler') or {}
    if sampler.get('type') == 'DefaultSampler':
        sampler.type = 'InfiniteSampler'
        sampler.pop('round_up', None)
    for hook in cfg.get('custom_hooks') or []:
        keys = [key for key, value in hook.items() if 'epoch' in key and value is not False]
        if keys:
            print(
                f'note: {cfg.filename}: {hook.type} counts epochs ({", ".join(keys)}), of which there is but one '
                'with --iters: what it does in a later one is left out'
            )


def _stretched(cfg: Config, by_epoch: bool, before: int, iters: int) -> list[ConfigDict]:
    """The parameter schedulers of a training of ``iters`` steps that was one of ``before`` epochs or steps."""
    schedulers = as_list(cfg.param_scheduler)
    factor = step_factor = iters / before
    if by_epoch:
        ends = [scheduler.get('end', _FOREVER) for scheduler in schedulers if not scheduler.get('by_epoch', True)]
        longest = max((end for end in ends if end < _FOREVER), default=0)
        step_factor = min(1.0, _LONGEST_WARM_UP * iters / longest) if longest else 1.0
    stretched = []
    for scheduler in schedulers:
        counts_epochs = scheduler.get('by_epoch', True)
        if counts_epochs and not by_epoch:
            raise InputError(
                f'{cfg.filename}: the parameter scheduler {scheduler.get("type")} counts epochs in a training that '
                'counts steps; give it by_epoch=False'
            )
        new = _scheduler(cfg, scheduler, factor if counts_epochs else step_factor, iters)
        if new.get('end', _FOREVER) - new.get('begin', 0) >= 2:
            stretched.append(new)
    return stretched


def _scheduler(cfg: Config, scheduler: ConfigDict, factor: float, iters: int) -> ConfigDict:
    """A parameter scheduler in steps, ``factor`` for each step or epoch that it counted before, ``iters`` in all."""
    kind = str(scheduler.get('type'))
    if kind.startswith('ReduceOnPlateau'):
        raise InputError(f'{cfg.filename}: --iters does not know how to stretch {kind}; give --cfg-options of your own')
    new = ConfigDict(scheduler, by_epoch=False)
    if new.pop('convert_to_iter_based', False):
        longest = round(_LONGEST_WARM_UP * iters)
        new.update({key: min(new[key], longest) for key in _STEPS if key in new})
    else:
        new.update({key: _scaled(new[key], factor) for key in _STEPS if key in new})
    for key in _TIMES:
        if new.get(key) is not None:
            new[key] = _scaled(new[key], factor)
    if kind.startswith('Exponential'):
        new.gamma = scheduler.gamma ** (1 / factor)
    return new


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, (list, tuple)):
        return [_scaled(item, factor) for item in value]
    return value if value >= _FOREVER else round(value * factor)

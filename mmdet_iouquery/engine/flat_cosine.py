"""DEIM's curve of the learning rate: up, flat, half a cosine down, flat."""

from __future__ import annotations

import math
from typing import Any

from mmdet.registry import PARAM_SCHEDULERS
from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.momentum_scheduler import MomentumSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF

from ..argument_checks import check_counts, check_numbers
from ..errors import InputError


def flat_cosine(step: int, *, warmup_iters: int, flat_end: int | None, decay_end: int | None, gamma: float) -> float:
    """The factor in [0, max(1, gamma)] on the base rate at ``step``, counted from 0; see :class:`FlatCosineLR`."""
    if step <= warmup_iters:
        return (step / warmup_iters) ** 2 if warmup_iters else 1.0
    if flat_end is None or decay_end is None or step <= flat_end:
        return 1.0
    if step >= decay_end:
        return gamma
    return gamma + (1 - gamma) * 0.5 * (1 + math.cos(math.pi * (step - flat_end) / (decay_end - flat_end)))


class FlatCosineParamScheduler(_ParamScheduler):
    """What :class:`FlatCosineLR` does to the rate, done to any parameter of the optimizer's groups."""

    def __init__(
        self,
        optimizer: Any,
        param_name: str,
        *,
        warmup_iters: int = 0,
        flat_end: int | None = None,
        decay_end: int | None = None,
        gamma: float = 0.5,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        name = type(self).__name__
        if by_epoch:
            raise InputError(
                f'{name} changes at every step: let it count steps (by_epoch=False), or its ends in epochs and add '
                'convert_to_iter_based=True'
            )
        check_counts(least=0, warmup_iters=warmup_iters)
        check_numbers(gamma=gamma)
        if (flat_end is None) != (decay_end is None):
            raise InputError(f'{name} needs both flat_end and decay_end, or neither for a rate that does not fall')
        if flat_end is not None and decay_end is not None:
            check_counts(least=0, flat_end=flat_end, decay_end=decay_end)
        phases = {'its warm-up': warmup_iters, 'flat_end': flat_end, 'decay_end': decay_end, 'the run': end - begin}
        steps = [(phase, step) for phase, step in phases.items() if step is not None]
        for (phase, step), (later, last) in zip(steps, steps[1:]):
            if step > last:
                raise InputError(f'{name}: {phase} ({step} steps) lies after {later} ({last} steps); set it earlier')
        self.warmup_iters, self.flat_end, self.decay_end, self.gamma = warmup_iters, flat_end, decay_end, gamma
        super().__init__(
            optimizer, param_name, begin=begin, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose
        )

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args: Any,
        flat_end: int | None = None,
        decay_end: int | None = None,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int,
        **others: Any,
    ) -> FlatCosineParamScheduler:
        """From ``begin``, ``flat_end``, ``decay_end`` and ``end`` in epochs of ``epoch_length`` steps."""
        if not by_epoch:
            raise InputError(f'{cls.__name__}: convert_to_iter_based is for by_epoch=True; leave one of them out')
        others['flat_end'] = None if flat_end is None else flat_end * epoch_length
        others['decay_end'] = None if decay_end is None else decay_end * epoch_length
        others['end'] = end if end == INF else end * epoch_length
        return cls(*args, begin=begin * epoch_length, by_epoch=False, **others)

    def phases(self) -> str:
        """What happens from step to step, for a log."""
        warm_up = f', warm-up to {self.begin + self.warmup_iters}' if self.warmup_iters else ''
        if self.flat_end is None or self.decay_end is None:
            return f'{warm_up}, then flat'
        flat, decay = self.begin + self.flat_end, self.begin + self.decay_end
        return f'{warm_up}, flat to {flat}, falling to {self.gamma:g} of it at {decay}'

    def _get_value(self) -> list[float]:
        factor = flat_cosine(
            self.last_step,
            warmup_iters=self.warmup_iters,
            flat_end=self.flat_end,
            decay_end=self.decay_end,
            gamma=self.gamma,
        )
        return [factor * base for base in self.base_values]


@PARAM_SCHEDULERS.register_module()
class FlatCosineLR(LRSchedulerMixin, FlatCosineParamScheduler):
    """DEIM's learning rate: a quadratic warm-up, flat, half a cosine down to ``gamma``, flat.

    At step t, counted from ``begin``, a group's own rate is multiplied by ``(t / warmup_iters) ** 2`` up to
    ``warmup_iters``; by 1 up to ``flat_end``; by half a cosine from 1 to ``gamma`` up to ``decay_end``; and by
    ``gamma`` from there on. The rate is that of the curve whatever stood in the group before, so that no other
    scheduler can act on it at the same time.

    The authors apply the curve after a step, so that their step t runs at the rate of t - 1 (and the first one at 1/500
    of the base rate, which their older warm-up leaves behind). Here step t runs at the rate of t.

    Args:
        optimizer: or its wrapper.
        warmup_iters: steps of the warm-up, always counted in steps; 0: there is none.
        flat_end: where the rate begins to fall; None, as ``decay_end`` then: never.
        decay_end: where it has fallen; DEIM: where the plain images at the end begin.
        gamma: what of the rate is left.
        begin, end, last_step, by_epoch, verbose: as in mmengine's schedulers. With ``convert_to_iter_based=True`` in
            its config, ``begin``, ``flat_end``, ``decay_end`` and ``end`` count epochs; otherwise all count steps, and
            ``by_epoch`` must be False.

    Raises:
        InputError: phases out of order, or longer than from ``begin`` to ``end`` (mmengine's Runner sets ``end`` to the
            run's); by epoch without conversion.
    """


@PARAM_SCHEDULERS.register_module()
class FlatCosineMomentum(MomentumSchedulerMixin, FlatCosineParamScheduler):
    """As :class:`FlatCosineLR`, of the momentum (of Adam's first beta)."""

"""The cost of matching that takes over late in a training."""

from __future__ import annotations

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...argument_checks import check_counts, check_flags
from ...errors import InputError
from ...models.losses.assigners import with_quality_cost


@HOOKS.register_module()
class MatchingCostHook(Hook):
    """Match by the assigners' ``quality_cost`` from an epoch on, and by their other costs before (DEIMv2).

    In the authors' recipes that is the last tenth of Atto's 500 epochs and the last quarter of S's 132. Which costs
    count follows from the epoch (or step) alone, so that a resumed run matches as it would have.

    Args:
        begin: the first epoch, counted from 0.
        by_epoch: False: it is a step.

    Raises:
        InputError: ``begin`` is none.
    """

    def __init__(self, begin: int, by_epoch: bool = True) -> None:
        check_counts(least=0, begin=begin)
        check_flags(by_epoch=by_epoch)
        self.begin = begin
        self.by_epoch = by_epoch
        self._late: bool | None = None

    @property
    def unit(self) -> str:
        """What ``begin`` counts."""
        return 'epochs' if self.by_epoch else 'steps'

    def before_train(self, runner: Runner) -> None:
        """Before anything else.

        Raises:
            InputError: it begins after the run's end, or no assigner has a ``quality_cost``.
        """
        total = runner.max_epochs if self.by_epoch else runner.max_iters
        if self.begin >= total:
            raise InputError(
                f'{type(self).__name__} has begin={self.begin}, and the run has {total} {self.unit}, counted from 0; '
                "set it to a lower number, or take the hook and the assigner's quality_cost out"
            )
        if not any(with_quality_cost(runner.model)):
            raise InputError(
                f'{type(self).__name__} finds no assigner with a quality_cost in the model: give its criterion '
                "assigner=dict(type='BatchedHungarianAssigner', quality_cost=dict(iou_power=4)), or leave the hook out"
            )
        self._late = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        late = (runner.epoch if self.by_epoch else runner.iter) >= self.begin
        if late == self._late:
            return
        self._late = late
        for assigner in with_quality_cost(runner.model):
            assigner.by_quality = late
        if late:
            runner.logger.info(f'matching by the quality cost, after {self.begin} {self.unit}')

    def phases(self, total: int) -> str:
        """When which costs count, for a log."""
        return f'quality cost of matching from {self.begin} to {total}'

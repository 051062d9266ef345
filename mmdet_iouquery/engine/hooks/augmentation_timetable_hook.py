"""Stages of a training that are augmented differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ...datasets.stages import enter_stage, staged_transforms
from ...errors import InputError
from ...models.data_preprocessors.batch_blend import STAGE, BatchBlend


@HOOKS.register_module()
class AugmentationTimetableHook(Hook):
    """Tell ``InStages``, ``BatchMixUp`` and ``BatchCopyBlend`` which stage of the training it is.

    In DEIM: ``timetable=[('plain', 0), ('mosaic', 4), ('strong', 29), ('plain', 50)]``.

    The stage follows from the epoch alone, so that a resumed run is in the one it would have been in. Where a timetable
    counts steps, images that workers have loaded ahead when a stage ends are still of that stage; without workers
    (``num_workers=0``) every image is of its own.

    Args:
        timetable: name of each stage and where it begins, in epochs counted from 0; the first begins at 0, and names
            may come again.
        by_epoch: False: it counts steps.

    Raises:
        InputError: the timetable is none.
    """

    priority = 'HIGH'  # before hooks that replace or restart what loads

    def __init__(self, timetable: Sequence[Sequence[Any]], by_epoch: bool = True) -> None:
        self.timetable = _checked(timetable)
        self.by_epoch = by_epoch
        self._told: str | None = None

    @property
    def unit(self) -> str:
        """What the timetable counts."""
        return 'epochs' if self.by_epoch else 'steps'

    def stage_at(self, time: int) -> str:
        """The stage of an epoch (or step), counted from 0."""
        return [name for name, begin in self.timetable if begin <= time][-1]

    def before_train(self, runner: Runner) -> None:
        """Before anything else.

        Raises:
            InputError: a stage begins after the run's end, or something waits for one that never comes.
        """
        total = runner.max_epochs if self.by_epoch else runner.max_iters
        for name, begin in self.timetable:
            if begin >= total:
                raise InputError(
                    f'{type(self).__name__}: stage {name!r} begins at {begin}, and the run has {total} {self.unit}, '
                    f'counted from 0; let it begin earlier, or take it out of the timetable'
                )
        known = {name for name, _ in self.timetable}
        for waiter, stages in waiting(runner):
            unknown = [stage for stage in stages if stage not in known]
            if unknown:
                raise InputError(
                    f'{waiter} waits for stage {unknown[0]!r}, and the timetable of {type(self).__name__} has '
                    f'{", ".join(sorted(known))}; name one of these, or add it there'
                )
        self._told = None

    def before_train_epoch(self, runner: Runner) -> None:
        stage = self.stage_at(runner.epoch if self.by_epoch else runner.iter)
        self._tell_model(runner, stage)
        enter_stage(runner.train_dataloader.dataset, stage)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if not self.by_epoch:
            self._tell_model(runner, self.stage_at(runner.iter))
            enter_stage(runner.train_dataloader.dataset, self.stage_at(runner.iter + 1))  # what is loaded next

    def _tell_model(self, runner: Runner, stage: str) -> None:
        if stage != self._told:
            time = runner.epoch if self.by_epoch else runner.iter
            runner.logger.info(f'stage of augmentation: {stage}, after {time} {self.unit}')
            # not by update_info: a checkpoint lists its keys without their values, and warns of them when it is resumed
            runner.message_hub.runtime_info[STAGE] = stage
            self._told = stage

    def phases(self, total: int) -> str:
        """When which stage is, for a log."""
        ends = [*(begin for _, begin in self.timetable[1:]), total]
        return ', '.join(f'{name} to {end}' for (name, _), end in zip(self.timetable, ends))


def waiting(runner: Runner) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What of a run is for some stages only, and for which."""
    for transform in staged_transforms(runner.train_dataloader.dataset):
        yield type(transform).__name__, transform.stages
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for module in model.modules():
        if isinstance(module, BatchBlend) and module.stages is not None:
            yield type(module).__name__, module.stages


def _checked(timetable: Sequence[Sequence[Any]]) -> tuple[tuple[str, int], ...]:
    rows = timetable if isinstance(timetable, Sequence) and not isinstance(timetable, str) else ()
    pairs = all(isinstance(row, Sequence) and not isinstance(row, str) and len(row) == 2 for row in rows)
    if not rows or not pairs or not all(isinstance(name, str) and type(begin) is int for name, begin in rows):
        raise InputError(f"timetable must be like [('plain', 0), ('mosaic', 4)], got {timetable!r}")
    begins = [begin for _, begin in rows]
    if begins[0] != 0 or any(begin >= later for begin, later in zip(begins, begins[1:])):
        raise InputError(f'the stages of a timetable must begin at 0 and each after the one before, got {timetable!r}')
    return tuple((name, begin) for name, begin in rows)

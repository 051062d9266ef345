"""Make up for a validation that an interruption cost."""

from __future__ import annotations

from bisect import bisect
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from ...file_io import write_text

NOTE = 'last_validation'
"""Name of the file in the work folder that holds the number of iterations after which the last validation ended."""


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Run the validation that a resumed training was in, or had before it, when it was stopped.

    A checkpoint is written before the validation of the same iteration or epoch, and mmengine resumes after it: the
    figures of that validation, and the best checkpoint that it may have found, would be missing.
    """

    # after the CheckpointHook, which writes the best checkpoint, and before StopOnSignalHook, which may end the run
    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self._training = False

    def before_train(self, runner: Runner) -> None:
        self._training = True
        if validation_due(runner) and noted_iteration(Path(runner.work_dir)) != runner.iter:
            runner.logger.info(f'validation after iteration {runner.iter}, which the run was stopped before or in')
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self._training and runner.rank == 0:
            write_text(Path(runner.work_dir) / NOTE, f'{runner.iter}\n')


def noted_iteration(work_dir: Path) -> int | None:
    """The iterations after which a folder's last validation ended; None: none has."""
    try:
        return int((work_dir / NOTE).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None


def validation_due(runner: Runner) -> bool:
    """Whether a validation belongs to the very iteration, or epoch, that a training was resumed after."""
    loop = runner.train_loop
    if runner.val_loop is None or runner.iter == 0:
        return False
    if isinstance(loop, IterBasedTrainLoop):
        done, last = loop.iter, loop.max_iters
    else:
        done, last = loop.epoch, loop.max_epochs
        if runner.iter != done * len(loop.dataloader):  # in the middle of an epoch
            return False
    interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, done + 1) - 1]
    return done >= loop.val_begin and (done % interval == 0 or done == last)

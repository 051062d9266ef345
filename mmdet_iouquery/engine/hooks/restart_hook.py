"""A second part of a training that begins from the best checkpoint of the first."""

from __future__ import annotations

from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.dist import barrier
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...argument_checks import check_counts
from ...compat import load_weights_and_average
from ...errors import InputError


@HOOKS.register_module()
class RestartHook(Hook):
    """At the beginning of an epoch, go back to the best checkpoint so far: its weights and their moving average.

    The authors of D-FINE and DEIM do so where strong augmentation ends. It is a choice by the validation set, which
    what follows is then measured on; so no config of this package has it, and results with it are to be told from
    those without. The optimizer, the rate and the count of epochs stay where they are. (The authors also set another
    decay of the average then, which their code does not read.)

    Args:
        epoch: counted from 0.

    Raises:
        InputError: ``epoch`` is none.
    """

    priority = 'LOW'

    def __init__(self, epoch: int) -> None:
        check_counts(epoch=epoch)
        self.epoch = epoch

    def before_train(self, runner: Runner) -> None:
        """Before anything else.

        Raises:
            InputError: the run keeps no best checkpoint, or does not come to that epoch.
        """
        if not isinstance(runner.train_loop, EpochBasedTrainLoop) or self.epoch >= runner.max_epochs:
            raise InputError(
                f'{type(self).__name__}: the run has no epoch {self.epoch}, counted from 0; name one before its end, '
                'or leave the hook out'
            )
        hook = _checkpoint_hook(runner)
        if hook is None or not hook.save_best or runner.val_loop is None:
            raise InputError(
                f'{type(self).__name__} goes back to the best checkpoint, and the run keeps none; set '
                "default_hooks.checkpoint.save_best='auto', with a val_dataloader"
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Raises InputError: there is no best checkpoint yet."""
        begins = runner.iter == runner.epoch * len(runner.train_dataloader)  # not where it is resumed in the middle
        if runner.epoch != self.epoch or not begins:
            return
        barrier()  # the first process may still be writing it
        path = _best_checkpoint(runner)
        if path is None:
            raise InputError(
                f'{type(self).__name__} goes back to the best checkpoint at epoch {self.epoch}, and there is none yet; '
                'let an evaluation come before (train_cfg.val_interval, val_begin), or leave the hook out'
            )
        runner.logger.info(f'going back to the weights of {path}')
        load_weights_and_average(runner, str(path))


def _checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


def _best_checkpoint(runner: Runner) -> Path | None:
    """That of the first metric; also where the work folder was moved since."""
    hook = _checkpoint_hook(runner)
    noted = [getattr(hook, 'best_ckpt_path', None), *getattr(hook, 'best_ckpt_path_dict', {}).values()]
    paths = [Path(path) for path in noted if path]
    candidates = (candidate for path in paths for candidate in (path, Path(runner.work_dir) / path.name))
    return next((path for path in candidates if path.is_file()), None)

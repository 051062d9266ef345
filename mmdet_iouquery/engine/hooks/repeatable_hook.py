"""A run that was interrupted goes on as it would have."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...compat import batches_counted_from
from ...datasets.seeded_batches import SeededBatchSampler, seed_of


@HOOKS.register_module()
class RepeatableHook(Hook):
    """Make what a step draws at random a function of the run's seed, the process and the step's number alone.

    Before every step torch's generators are seeded anew, so denoising queries and dropout are those of the same step in
    a run that was never interrupted. A run resumed in the middle of an epoch goes on there, without the samples that it
    has seen; mmengine would begin the epoch again. For the augmentation of samples to follow suit, the data loader
    needs ``batch_sampler=dict(type='SeededBatchSampler')``; with any other, an epoch that was broken off begins again.

    The seed is that of the run (``randomness.seed``, or the one that mmengine drew); a checkpoint carries it.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._epoch = ExitStack()

    def before_train(self, runner: Runner) -> None:
        """A resumed run has the seed of its checkpoint; its sampler was built before, maybe with another."""
        sampler: Any = getattr(_batches(runner), 'sampler', None)
        by_rank = runner.cfg.get('randomness', {}).get('diff_rank_seed', False)
        if runner.iter and hasattr(sampler, 'seed') and not by_rank:
            sampler.seed = runner.seed

    def before_train_epoch(self, runner: Runner) -> None:
        """Skip what the interrupted epoch has had."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        batches = _batches(runner)
        done = runner.iter - runner.epoch * len(runner.train_dataloader)
        if isinstance(batches, SeededBatchSampler):
            batches.skip_batches(done)
            self._epoch.enter_context(batches_counted_from(runner.train_loop, done))
        elif done:
            runner.logger.warning(
                f'resumed in the middle of epoch {runner.epoch + 1}, which begins again: only with '
                "train_dataloader.batch_sampler=dict(type='SeededBatchSampler') can it be entered there"
            )

    def after_train_epoch(self, runner: Runner) -> None:
        self._epoch.close()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        torch.manual_seed(seed_of(runner.seed, runner.rank, runner.iter))


def _batches(runner: Runner) -> Any:
    return runner.train_dataloader.batch_sampler

"""How many images a training could not use, in its log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...datasets.loading import LoadCheckedImage


@HOOKS.register_module()
class SkippedPicturesHook(Hook):
    """Log how often this process's :class:`LoadCheckedImage` has left an image out, as ``skipped_pictures``.

    With every step once there is something to say, and in a sentence at the end of an epoch and of the run.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        total = sum(loader.skipped for loader in _loaders(runner.train_dataloader.dataset))
        if total:
            runner.message_hub.update_scalar('train/skipped_pictures', total)

    def after_train_epoch(self, runner: Runner) -> None:
        self.after_train(runner)

    def after_train(self, runner: Runner) -> None:
        loaders = list(_loaders(runner.train_dataloader.dataset))
        total, files = sum(loader.skipped for loader in loaders), sum(loader.ledger.files for loader in loaders)
        if total:
            runner.logger.warning(f'samples skipped so far: {total}, of images: {files}; each is named above')


def _loaders(dataset: Any) -> Iterator[LoadCheckedImage]:
    """Those in the pipelines of a dataset and of what it wraps."""
    for transform in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if isinstance(transform, LoadCheckedImage):
            yield transform
    for inner in (*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)):
        if inner is not None:
            yield from _loaders(inner)

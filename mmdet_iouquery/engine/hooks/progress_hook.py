"""A progress bar for short trainings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm


@HOOKS.register_module()
class ProgressHook(Hook):
    """One bar over all training iterations with the current loss and the latest AP, on the main process.

    mmengine's log goes on; raise the ``LoggerHook``'s ``interval`` to keep its lines out of the bar's way.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.shown: dict[str, str] = {}

    def before_train(self, runner: Runner) -> None:
        if runner.rank == 0:
            self.bar = tqdm(
                total=runner.max_iters,
                initial=runner.iter,
                desc='training',
                unit='step',
                mininterval=1.0 if sys.stderr.isatty() else 15.0,
                dynamic_ncols=True,
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        if self.bar is not None:
            if outputs and self.every_n_train_iters(runner, 10):
                self.shown['loss'] = f'{outputs["loss"].item():.2f}'
                self.bar.set_postfix(self.shown, refresh=False)
            self.bar.update()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        ap = next((value for key, value in (metrics or {}).items() if key.endswith('bbox_mAP')), None)
        if self.bar is not None and ap is not None:
            self.shown['AP'] = f'{ap:.3f}'
            self.bar.set_postfix(self.shown)

    def after_train(self, runner: Runner) -> None:
        if self.bar is not None:
            self.bar.close()


@contextmanager
def closed_progress(runner: Any) -> Iterator[None]:
    """End the line of a progress bar, however a training inside ends: mmengine tells hooks of success only."""
    try:
        yield
    finally:
        for hook in runner.hooks:
            if isinstance(hook, ProgressHook):
                hook.after_train(runner)

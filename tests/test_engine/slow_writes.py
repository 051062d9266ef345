"""Imported by a config of the tests: checkpoints that take long to write, and a journal of what training does."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.fileio import register_backend
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_iouquery.engine import AtomicLocalBackend

CHUNKS = 20


def note(journal: str, line: str) -> None:
    """Append a line; what the kernel has taken survives the process."""
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f'{line}\n'.encode())
    os.close(descriptor)


@register_backend('slow')
class SlowAtomicBackend(AtomicLocalBackend):
    """The backend under test, with time to kill it in each part of a write: ``seconds`` in all."""

    def __init__(self, journal: str, seconds: float) -> None:
        super().__init__()
        self.journal, self.seconds = journal, seconds

    def put(self, obj: bytes, filepath: str | Path) -> None:
        note(self.journal, f'writing {Path(filepath).name}')
        super().put(obj, filepath)
        note(self.journal, f'written {Path(filepath).name}')

    def _write(self, obj: bytes, path: Path) -> None:
        step = len(obj) // CHUNKS + 1
        with open(path, 'wb') as file:
            for start in range(0, len(obj), step):
                file.write(obj[start : start + step])
                file.flush()
                time.sleep(0.8 * self.seconds / CHUNKS)
            os.fsync(file.fileno())

    def _remove_outdated(self, folder: Path) -> None:
        time.sleep(0.1 * self.seconds)  # renamed, and the outdated one still there
        super()._remove_outdated(folder)
        time.sleep(0.1 * self.seconds)  # and gone, and mmengine's note not yet written


@HOOKS.register_module()
class JournalHook(Hook):
    """Writes down where training begins, and each iteration that is done."""

    priority = 'NORMAL'  # before the checkpoint

    def __init__(self, journal: str) -> None:
        self.journal = journal

    def before_train(self, runner: Runner) -> None:
        note(self.journal, f'begin {runner.iter}')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        note(self.journal, f'step {runner.iter + 1}')

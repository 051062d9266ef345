"""Stop at a signal without losing a step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, barrier, is_distributed, is_main_process
from mmengine.fileio import get_file_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...errors import InputError, TrainingStopped
from ..atomic_backend import AtomicLocalBackend
from ..resume import NOTE

NAMES = ('SIGTERM', 'SIGINT', 'SIGUSR1', 'SIGUSR2', 'SIGHUP', 'SIGXCPU', 'SIGBREAK')
"""Signals that can ask for a stop; each system has some of them."""

_OWN_CHECKPOINT = 'stop_ckpt'


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Let the running iteration finish, save everything and end training when a signal asks for it.

    Schedulers send SIGTERM, or SIGUSR1 some time before it; a person presses Ctrl-C (SIGINT; a second one stops at
    once). Training then raises :class:`~mmdet_iouquery.errors.TrainingStopped`, with which a program leaves with status
    128 + signal. With several processes it is enough that one of them gets the signal: all stop after the same
    iteration.

    What is saved is a checkpoint like any other, ``iter_N.pth`` after N iterations or, where an epoch is just over,
    ``epoch_N.pth``; nothing where ``CheckpointHook`` has just written one. It is none of those that ``CheckpointHook``
    counts: when training goes on from it, it is removed once the next one is written. During a validation, training
    stops at once if all of its steps are on the disk already, and after the validation if not. A signal in the last
    iteration changes nothing. Data workers go on where a signal reaches the whole job; where they do not, as those that
    an iteration-based loop of mmengine 0.10.7 starts before any hook is called, :meth:`stop_without_data` saves.

    Args:
        signals: some of :data:`NAMES`; those that the system does not have are left out.

    Raises:
        InputError: another name.
    """

    priority = 'LOWEST'  # the others have done their part of the iteration, the CheckpointHook too

    def __init__(self, signals: Sequence[str] = ('SIGTERM', 'SIGUSR1', 'SIGINT')) -> None:
        if isinstance(signals, str) or any(name not in NAMES for name in signals):
            raise InputError(f'StopOnSignalHook: signals={signals!r} must be a list of some of {", ".join(NAMES)}')
        self.signals = [signal.Signals[name] for name in signals if name in signal.Signals.__members__]
        self.received = 0
        self._training = self._validating = False
        self._done: int | None = None  # iterations, while none is half done
        self._saved_iter, self._last_checkpoint = -1, None
        self._replaced: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        self._training = True
        self._last_checkpoint = runner.message_hub.get_info('last_ckpt')
        self._outdate(runner, runner.message_hub.runtime_info.pop(_OWN_CHECKPOINT, None))
        if threading.current_thread() is not threading.main_thread():
            return  # Python calls handlers in the main thread only
        for signum in self.signals:
            self._replaced[signum] = signal.signal(signum, partial(self._receive, os.getpid()))
        loops = [loop for loop in (runner.train_loop, runner.val_loop) if loop is not None]
        for loader in (loop.dataloader for loop in loops):
            loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn, tuple(self.signals))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._done = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        self._done = done = runner.iter + 1
        self._notice_checkpoint(runner, done)
        if done >= runner.max_iters or _ends_epoch(runner, batch_idx):
            return
        signum = self._agreed()
        if signum:
            self._stop(runner, signum, f'iter_{done}.pth', epoch=runner.epoch, iter=done)

    def after_train_epoch(self, runner: Runner) -> None:
        self._notice_checkpoint(runner, runner.iter)
        if runner.iter >= runner.max_iters or not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        signum = self._agreed()
        if signum:
            epoch = runner.epoch + 1
            self._stop(runner, signum, f'epoch_{epoch}.pth', epoch=epoch, iter=runner.iter)

    def before_val_epoch(self, runner: Runner) -> None:
        self._validating = True  # perhaps with averaged weights

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        saved = self._saved_iter == runner.iter < runner.max_iters
        if self.received and saved and not is_distributed():  # the others may be at another image
            self._stop(runner, self.received, '', epoch=runner.epoch, iter=runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._validating = False
        if not self._training or runner.iter >= runner.max_iters:
            return
        signum = self._agreed()
        if signum:
            by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            name = f'epoch_{runner.epoch}.pth' if by_epoch else f'iter_{runner.iter}.pth'
            self._stop(runner, signum, name, epoch=runner.epoch, iter=runner.iter)

    def after_train(self, runner: Runner) -> None:
        self._training = False
        self._restore_handlers()

    def stop_without_data(self, runner: Runner) -> None:
        """Save and stop where a signal has ended the data workers; return where an iteration is half done.

        Raises:
            TrainingStopped: all that was done is saved.
        """
        if self.received and self._done is not None and not self._validating and not is_distributed():
            self._stop(runner, self.received, f'iter_{self._done}.pth', epoch=runner.epoch, iter=self._done)

    def _receive(self, pid: int, signum: int, frame: object) -> None:
        """Remember a signal. Data workers that are forked from this process leave it alone."""
        if os.getpid() != pid:
            return
        if self.received == signum == signal.SIGINT:
            self._restore_handlers()
            raise KeyboardInterrupt
        if not self.received:
            # a signal to the whole job may end data workers, those too that started before this hook could tell them to
            # go on; torch would raise in mid-iteration, or after the stop, so its handler does not come back
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # not print: that could be what was interrupted
            os.write(2, f'\n{signal.Signals(signum).name}: stopping after this iteration\n'.encode())
            self.received = signum

    def _agreed(self) -> int:
        """The signal that this or another process has received; 0: none has."""
        if not is_distributed():
            return self.received
        received = torch.tensor(self.received)
        all_reduce(received, 'max')
        return int(received)

    def _notice_checkpoint(self, runner: Runner, done: int) -> None:
        last = runner.message_hub.get_info('last_ckpt')
        if last != self._last_checkpoint:
            self._saved_iter, self._last_checkpoint = done, last

    def _stop(self, runner: Runner, signum: int, name: str, **progress: int) -> None:
        path = self._last_checkpoint
        if self._saved_iter != progress['iter']:
            path = self._save(runner, name, progress)
        barrier()  # a launcher ends the other processes when the first of them is gone
        self._restore_handlers()
        raise TrainingStopped(signum, f'after iteration {progress["iter"]}; saved {path}, from which it can be resumed')

    def _save(self, runner: Runner, name: str, progress: dict[str, int]) -> str:
        folder, backend_args = _destination(runner)
        runner.message_hub.update_info(_OWN_CHECKPOINT, name)
        # whatever loop this is, mmengine adds nothing to an epoch and an iteration that are given
        runner.save_checkpoint(folder, name, meta=dict(progress), by_epoch=False, backend_args=backend_args)
        path = os.path.join(folder, name)
        if is_main_process():  # for mmengine's own way to resume
            AtomicLocalBackend().put_text(path, Path(runner.work_dir) / NOTE)
        return path

    def _outdate(self, runner: Runner, name: str | None) -> None:
        """Have a checkpoint that this hook wrote removed when the next one is on the disk."""
        folder, backend_args = _destination(runner)
        backend = get_file_backend(folder, backend_args=backend_args)
        if name and is_main_process() and isinstance(backend, AtomicLocalBackend):
            path = os.path.join(folder, name)
            if backend.isfile(path):
                backend.remove(path)

    def _restore_handlers(self) -> None:
        for signum, handler in self._replaced.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._replaced.clear()


def stopping_hook(runner: Any) -> StopOnSignalHook | None:
    """The hook of a runner whose training a signal has asked to stop; None: none has."""
    return next((hook for hook in runner.hooks if isinstance(hook, StopOnSignalHook) and hook.received), None)


def _ends_epoch(runner: Runner, batch_idx: int) -> bool:
    """Whether an epoch is over after this iteration; one that was resumed in the middle has fewer batches."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        return False
    return batch_idx + 1 == len(loop.dataloader) or (runner.iter + 1) % len(loop.dataloader) == 0


def _destination(runner: Runner) -> tuple[str, dict[str, Any] | None]:
    """Folder and backend of the run's checkpoints."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            return str(hook.out_dir), hook.backend_args
    return str(runner.work_dir), {'backend': 'atomic'}


def _start_worker(init: Callable[[int], None] | None, signals: Sequence[int], worker_id: int) -> None:
    """Let a data worker go on when a scheduler signals every process of a job; only its own job's end ends it."""
    for signum in signals:
        if signum != signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if signal.SIGTERM in signals and parent is not None and hasattr(signal, 'sigwaitinfo'):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_asked_by, args=(parent.pid,), daemon=True).start()
    if init is not None:
        init(worker_id)


def _end_when_asked_by(pid: int | None) -> None:
    """Wait for a SIGTERM of this process, as it ends workers that do not leave by themselves."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != pid:
        pass
    os._exit(0)

"""How a run can end that is neither success nor a bug, reported in one sentence that says how to continue."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..compat import calls
from ..errors import CheckpointWriteError, DataWorkerError, InputError, TrainingStopped, goes_on, same_command
from .atomic_backend import NO_ROOM, cannot_write
from .hooks.stop_hook import stopping_hook
from .resume import latest_checkpoint

DISK_FAULTS = (*NO_ROOM, errno.EFBIG, errno.EIO, errno.EROFS)
_WORKER_DIED = re.compile(r'DataLoader worker \(pid')
_OUT_OF_FILES = re.compile(r'Too many open files|received 0 items of ancdata')  # also in what a worker hands on as text
_BY_SIGNAL = re.compile(r'killed by signal: ([\w ]+)')


@contextmanager
def told_endings(runner: Any, folder: Path) -> Iterator[None]:
    """Have what happens to a training inside raise one of the project's own errors where it is no bug.

    Args:
        runner: mmengine's, that trains inside.
        folder: of its checkpoints.

    Raises:
        CheckpointWriteError: a disk is full or faulty.
        DataWorkerError: a data worker died, or no more files can be opened.
        InputError: one of mmdet's detectors selects more queries than a batch has tokens.
        TrainingStopped: a signal asked for it, and ended the data workers before the running step was done.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FAULTS:
            raise CheckpointWriteError(cannot_write(Path(error.filename or folder), error, folder)) from error
        _check_tokens(error)
        behind = _behind(error)
        if not any(map(_is_data_fault, behind)):
            raise
        hook = stopping_hook(runner)
        if hook is not None:
            hook.stop_without_data(runner)
            how = 'before a step was done, as its data workers were stopped too'
            raise TrainingStopped(hook.received, f'{how}; {_go_on(folder)}') from error
        loader = 'train_dataloader (or val_dataloader, in a validation)'
        raise DataWorkerError(_data_fault(behind, loader, _go_on(folder))) from error
    except KeyboardInterrupt as interrupt:
        raise TrainingStopped(signal.SIGINT, f'at once; {_go_on(folder)}') from interrupt


@contextmanager
def told_data_faults() -> Iterator[None]:
    """As :func:`told_endings`, of what reads the test set inside.

    Raises:
        DataWorkerError: a data worker died, or no more files can be opened.
    """
    try:
        yield
    except Exception as error:
        behind = _behind(error)
        if not any(map(_is_data_fault, behind)):
            raise
        raise DataWorkerError(_data_fault(behind, 'test_dataloader', f'then {same_command()} starts again')) from error


def _check_tokens(error: Exception) -> None:
    """Sizes that a pipeline draws can be smaller than those that were drawn before the run."""
    for call in calls(error):
        memory = call.arguments.get('memory') if call.function == 'pre_decoder' else None
        if memory is not None and 0 < memory.shape[1] < getattr(call.owner, 'num_queries', 0):
            raise InputError(
                f'images came that have {memory.shape[1]} tokens on all maps together, of which '
                f'model.num_queries={call.owner.num_queries} cannot be selected: set it to {memory.shape[1]} or fewer, '
                'or take larger images, and train anew with --restart'
            ) from error


def _behind(error: BaseException) -> list[BaseException]:
    """An exception, and those in whose handling it was raised, the latest first.

    torch tells of a dead worker from a signal handler, so in the midst of whatever runs just then. A library that
    catches it there makes an error of its own from it: yapf, which formats a config, one of syntax.
    """
    chain = [error]
    for latest in chain:  # grows
        chain += [e for e in (latest.__cause__, latest.__context__) if e is not None and e not in chain]
    return chain


def _is_data_fault(error: BaseException) -> bool:
    return _is_out_of_files(error) or _is_worker_death(error)


def _data_fault(behind: Sequence[BaseException], loader: str, next_step: str) -> str:
    """What to tell of the data workers of ``loader``, whose fault is among these exceptions."""
    if any(map(_is_out_of_files, behind)):
        return _no_more_files(loader, next_step)
    return _worker_died(behind, loader, next_step)


def _is_out_of_files(error: BaseException) -> bool:
    return isinstance(error, (OSError, RuntimeError)) and _OUT_OF_FILES.search(str(error)) is not None


def _is_worker_death(error: BaseException) -> bool:
    """Whether a data worker died: torch says so, or a batch of its could not be taken over.

    A tensor's memory is asked for at a socket of the worker that made it. One that is being killed closes its sockets
    a moment before the system calls it dead, and torch hands on what the socket says.
    """
    if isinstance(error, RuntimeError):
        return _WORKER_DIED.search(str(error)) is not None
    taken = any((call.module, call.function) == ('multiprocessing.queues', 'get') for call in calls(error))
    return isinstance(error, (EOFError, ConnectionError)) and taken


def _worker_died(behind: Sequence[BaseException], loader: str, next_step: str) -> str:
    """What to tell a person about a data worker's death, of these exceptions: what, the likely reasons, the remedy."""
    killed = next((match[1].strip() for match in map(_BY_SIGNAL.search, map(str, behind)) if match), None)
    how = f'was ended by the signal {killed!r}' if killed else 'exited without an error message'
    return (
        f'a process that loads data {how}. Killed: the machine ran out of memory, see dmesg; take a smaller '
        f'num_workers or batch_size of {loader}. Bus error: /dev/shm is full, as in a container with its 64 MB '
        '(docker run --shm-size=8g). Segmentation fault or else: a library or a transform broke; '
        f'num_workers=0 and persistent_workers=False there show where; {next_step}'
    )


def _no_more_files(loader: str, next_step: str) -> str:
    """What to tell a person where a process has as many files open as it may: why, the remedies."""
    return (
        'a process may open no more files, of which every tensor that a data worker hands over is one. Raise the limit '
        '(`ulimit -n 65536` before the command, docker run --ulimit nofile=65536), take a smaller '
        f'num_workers or batch_size of {loader}, or have tensors handed over by name: --cfg-options '
        f"sharing_strategy=file_system, which is torch.multiprocessing.set_sharing_strategy('file_system'); {next_step}"
    )


def _go_on(folder: Path) -> str:
    newest = latest_checkpoint(folder)
    if newest is None:
        return f'there is no checkpoint in {folder} yet, so start again'
    return f'the newest whole checkpoint is {newest}; {goes_on()}'

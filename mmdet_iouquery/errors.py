"""What this project raises for a person to read, and the exit statuses of its command lines."""

from __future__ import annotations

import signal
import sys


class InputError(ValueError):
    """Bad input: the message names what is wrong, where, and the remedy.

    The command ``iouquery`` prints the message alone and leaves with status 2; used as a library it is an ordinary
    ``ValueError``.
    """

    status = 2


class RunError(RuntimeError):
    """A run that was asked for rightly cannot go on: the message says what happened and how to go on.

    ``status`` is the exit status that the command lines leave with.
    """

    status = 1


class NonFiniteError(RunError):
    """Training met values that are not finite."""

    status = 3


class CheckpointWriteError(RunError):
    """A checkpoint cannot be written: the disk is full, gone or faulty. Earlier checkpoints are as they were."""

    status = 4


class DataWorkerError(RunError):
    """A process that loads data has died, or no more files can be opened."""

    status = 5


class ParityError(RunError):
    """An exported file does not compute what the model computes."""

    status = 6


class TrainingStopped(SystemExit):
    """Training ended early because a signal asked for it.

    A ``SystemExit``, so that a program that does not know it leaves with the same status, without a traceback: 128 and
    the signal's number, as shells say it (SIGINT 130, SIGUSR1 138, SIGTERM 143 on Linux).
    """

    def __init__(self, signum: int, how: str) -> None:
        super().__init__(128 + signum)
        self.message = f'stopped by {signal.Signals(signum).name} {how}'

    def __str__(self) -> str:
        return self.message


def goes_on() -> str:
    """How a run goes on from its newest checkpoint."""
    return f"{same_command()} goes on from it (mmdet's own tools: with --resume)"


def same_command() -> str:
    """What is to be called again to go on: this command, but for the option that starts anew."""
    return 'the same command without --restart' if '--restart' in sys.argv else 'the same command'

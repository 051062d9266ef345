"""What this package raises for a person to read."""

from __future__ import annotations

import importlib
from typing import Any


class InputError(ValueError):
    """Bad input: the message names what is wrong, where, and the remedy. The command leaves with ``status``."""

    status = 2


class WriteError(InputError):
    """A file of the output cannot be written: the disk is full, gone or faulty. What was written before is whole."""

    status = 4


class WorkersError(InputError):
    """The processes that do the work are gone, or fail whatever they are given."""

    status = 5


def optional(module: str, purpose: str, install: str) -> Any:
    """A module that not every user needs.

    Raises:
        InputError: it is not installed, or does not load; the message has the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition('.')[0])
        state = 'is not installed' if missing else f'does not load ({reason(error)})'
        raise InputError(f'{purpose} needs {module}, which {state}: pip install {install}') from error


def reason(error: BaseException) -> str:
    """What another library's error says, in one line: the last, as the first ones tell where in its own code it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip('!. ') if lines else type(error).__name__

"""From a command line to what it asks for: what the command ``iouquery`` and the scripts in ``tools/`` do.

Nothing heavy is imported before the arguments have been read.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from iouquery_runtime.errors import InputError as RuntimeInputError

from . import REGISTER_VARIABLE, compat, register
from .apps.commands import COMMANDS, load
from .errors import InputError
from .version import __version__

NAME = 'iouquery'


def main(arguments: Sequence[str] | None = None, command: str | None = None) -> int:
    """Run a command line.

    Args:
        arguments: all words of it; None: those that this process was started with.
        command: that they are for; None: the first of them names it.

    Returns:
        The exit status, see :func:`~mmdet_iouquery.engine.launch.run_tool`; 2 where there is no such command, 141
        where what reads its output has gone.

    Raises:
        SystemExit: of argparse, after ``--help`` and with status 2 for arguments that cannot be meant.
    """
    try:
        status = _run([*(sys.argv[1:] if arguments is None else arguments)], command)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return 141  # 128 + SIGPIPE, which Windows does not know
    return status


def _reader_is_gone() -> bool:
    """Whether nobody reads the standard output any more, as after ``| head``; what is left of it is thrown away."""
    try:
        print(flush=True)  # what was to be written is lost where it was long
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # for what Python flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _run(given: list[str], command: str | None) -> int:
    start = None
    if command is None:
        if given[:1] in ([], ['-h'], ['--help']):
            print(overview())
            return 0
        if given[0] == '--version':
            print(f'{NAME} {__version__}')
            return 0
        command, *given = given
        if command not in COMMANDS:
            print(f'error: {_unknown(command)}', file=sys.stderr)
            return InputError.status
        start = f'{NAME} {command}'
    entry = COMMANDS[command]
    args = entry.parser_for(start).parse_args(given) if entry.parser else given
    os.environ.pop(REGISTER_VARIABLE, None)  # processes that this one starts register when they import
    if entry.check and (status := _run_light(lambda: load(entry.check)(args))):
        return status
    if entry.is_light or (entry.is_light_for and load(entry.is_light_for)(args)):
        return _run_light(lambda: load(entry.run)(args))
    return _run_registered(lambda: load(entry.run)(args))


def overview() -> str:
    """The commands, each with what it does."""
    width = max(map(len, COMMANDS))
    rows = [f'  {name:<{width}}  {command.summary}' for name, command in COMMANDS.items()]
    return '\n'.join(
        [
            f'usage: {NAME} COMMAND ...\n\nRT-DETR and its kin for MMDetection 3.x. Commands:\n',
            *rows,
            f'\n`{NAME} COMMAND --help` has the arguments of each, and an example; `{NAME} --version` the version.',
        ]
    )


def _unknown(command: str) -> str:
    close = difflib.get_close_matches(command, COMMANDS, n=3, cutoff=0.5)
    hint = f'close to it: {", ".join(close)}' if close else f'there are {", ".join(COMMANDS)}'
    return f'there is no command {command!r}; {hint}'


def _run_registered(run: Callable[[], object]) -> int:
    try:
        compat.check_environment()
    except ImportError as error:
        print(f'error: {error}', file=sys.stderr)
        return InputError.status
    if not compat.mmdet_installed():
        print(
            f'error: MMDetection is not installed here; `{NAME} doctor` has the line that installs it', file=sys.stderr
        )
        return InputError.status
    register()
    from .engine.launch import run_tool

    return run_tool(run)


def _run_light(run: Callable[[], int | None]) -> int:
    try:
        return run() or 0
    except (InputError, RuntimeInputError) as error:
        print(f'error: {error}', file=sys.stderr)
        return error.status

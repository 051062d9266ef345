"""Run one of the tools in a process of its own.

Around ``subprocess``, whose ``run`` kills the program 0.25 s after Ctrl-C, while it writes its last checkpoint.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import TrainingStopped, same_command

_SIGNALS = tuple(signal.Signals[name] for name in ('SIGINT', 'SIGTERM') if name in signal.Signals.__members__)


def run_child(
    program: Path,
    *arguments: object,
    stdout: IO[Any] | None = None,
    environment: dict[str, str] | None = None,
    patience: float | None = 2.0,
) -> int:
    """Run a Python program with this interpreter, and let it end in its own time when a signal asks for a stop.

    SIGTERM is passed on. Ctrl-C is not, as a terminal sends it to the program too; one that still runs some seconds
    later may not have been told, as where a supervisor signals this process alone, and gets SIGTERM.

    Args:
        program: to run.
        arguments: of its command line.
        stdout: file that takes what it prints; None: where this process prints.
        environment: its environment variables; None: those of this process.
        patience: those seconds; None: it gets no SIGTERM after Ctrl-C, as where it is ending processes of its own.

    Returns:
        its exit status, negative where a signal ended it.

    Raises:
        TrainingStopped: a signal came while it ran; it has ended.
    """
    received: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def remember(signum: int, _frame: object) -> None:
        received.append(signum)
        for child in children:
            _pass_on(signum, child, patience)

    with _handlers(remember):
        children.append(
            subprocess.Popen([sys.executable, str(program), *map(str, arguments)], stdout=stdout, env=environment)
        )
        for signum in received[:1]:  # before there was a process to pass it on to
            _pass_on(signum, children[0], patience)
        status = children[0].wait()
    if received:
        raise TrainingStopped(received[0], f'in {program.name}; {same_command()} goes on where it was')
    return status


def _pass_on(signum: int, child: subprocess.Popen[bytes], patience: float | None) -> None:
    if signum != signal.SIGINT:
        child.terminate()
    elif patience is not None:
        later = threading.Timer(patience, child.terminate)  # which does nothing to one that has ended
        later.daemon = True
        later.start()


@contextmanager
def _handlers(handler: Any) -> Iterator[None]:
    """Handle signals, not ignore them: a program inherits what is ignored, and must hear them itself."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python calls handlers in the main thread only
        return
    before = {signum: signal.signal(signum, handler) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, signal.SIG_DFL if previous is None else previous)

"""The page as a user starts it, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

TOOL = Path(__file__).parents[3] / 'tools' / 'demo.py'
PATIENCE = 120  # s, for a machine that does much else


def wait_for(condition: Callable[[], Any], what: str, ignored: tuple[type[Exception], ...] = ()) -> Any:
    """The condition's value as soon as it is true."""
    expected: tuple[type[Exception], ...] = (OSError, HTTPException, *ignored)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            value = condition()
        except expected:  # a server that isn't up; a file that is just being written
            value = None
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f'no {what} after {PATIENCE} s')


@contextmanager
def served(folder: Path, *arguments: object) -> Iterator[tuple[str, Callable[[], str]]]:
    """Gives the address and what reads the output so far; ends it by Ctrl-C.

    Args:
        folder: for the output and for Gradio's files.
        arguments: of the command line.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with open(folder / 'log.txt', 'w') as log:
        process = subprocess.Popen(
            [sys.executable, str(TOOL), '--port', str(port), *map(str, arguments)],
            stdout=log,
            stderr=log,
            env={**os.environ, 'GRADIO_TEMP_DIR': str(folder)},
            # a shell's background jobs are deaf to Ctrl-C, and so is what they start
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    url = f'http://127.0.0.1:{port}/'

    def output() -> str:
        return (folder / 'log.txt').read_text()

    def up() -> bool:
        assert process.poll() is None, output()
        with urllib.request.urlopen(url) as answer:
            return answer.status == 200 and 'Ctrl-C ends it' in output()

    try:
        wait_for(up, 'page')
        yield url, output
        assert f':{port}/; Ctrl-C ends it' in output()
        process.send_signal(signal.SIGINT)
        wait_for(lambda: process.poll() is not None, 'end')
        assert 'Traceback' not in output() or 'Too little data for declared Content-Length' in output()  # see wait_for
    finally:
        process.kill()
        process.wait()

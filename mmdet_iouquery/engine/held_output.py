"""What is printed and logged while a run is made ready, held back, so that a refusal is all that is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from ..errors import InputError


class HeldOutput:
    """Stands in for a stream: what is written waits until it is shown; from then on it passes.

    mmengine's log keeps the stream that is standard output when a runner is built, so one such object may outlive
    what it stands in for.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: list[str] | None = []

    def write(self, text: str) -> int:
        """As of any stream."""
        if self._waiting is None:
            return self._stream.write(text)
        self._waiting.append(text)
        return len(text)

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting = []

    def show(self) -> None:
        """Write what waits, and from now on all at once."""
        waiting, self._waiting = self._waiting, None
        self._stream.write(''.join(waiting or ()))
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def held_back() -> Iterator[HeldOutput]:
    """A stand-in for standard output, shown when the inside is done, however; with an InputError all is dropped."""
    held = HeldOutput(sys.stdout)
    try:
        yield held
    except InputError:
        held.drop()
        raise
    finally:
        held.show()

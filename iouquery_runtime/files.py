"""Files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to, which gets the name ``path`` at the end; after an error there is neither.

    The folder is made where it is missing.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f'{path} cannot be written: {error.strerror or error}; name another file, or make room'
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()

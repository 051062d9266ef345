"""Text files that are whole or absent, and checksums.

A process killed while it writes leaves the file that was there before.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from iouquery_runtime.files import sha256


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8 beside ``path``, and rename it into place. The folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_text(text, encoding='utf-8')
    os.replace(temporary, path)


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as JSON likewise, one value a line.

    Raises:
        ValueError: it holds NaN or infinity, which JSON does not know.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + '\n')


def checksum(path: Path) -> str:
    """The first half of a file's SHA-256, for a person to compare."""
    return sha256(path)[:32]


def text_checksum(text: str) -> str:
    """That of a file that :func:`write_text` writes."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def identity(path: Path) -> str:
    """A file by its name and the beginning of its checksum: what a message about another file can show."""
    return f'{path.name}, SHA-256 {checksum(path)[:16]}'


def umask() -> int:
    """What new files of this process are denied; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

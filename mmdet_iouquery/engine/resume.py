"""Where an interrupted training goes on from."""

from __future__ import annotations

import glob
import locale
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..checkpoints.files import damage, is_zip
from ..errors import InputError

NOTE = 'last_checkpoint'
"""Name of the file in which mmengine notes the checkpoint it wrote last."""

OUTDATED = '.outdated'
"""Ending of a checkpoint's name that is to be removed when the next one is written."""

PATTERNS = ('epoch_*.pth', 'iter_*.pth')


def is_complete(path: Path) -> bool:
    """Whether a checkpoint file was written to its end: its zip directory, which comes last, can be read.

    A quick look, for lists; :func:`~mmdet_iouquery.checkpoints.files.damage` reads all of it.
    """
    return path.is_file() and is_zip(path)


def latest_checkpoint(work_dir: str | Path, *others: str | Path) -> Path | None:
    """The newest training checkpoint of these folders of which every checksum is right; None: there is none.

    Newest by the time it was written, then by the number in its name. Looked at are ``epoch_*.pth``, ``iter_*.pth``
    and, also under another name or in another folder, what mmengine noted in ``last_checkpoint`` and its like; and
    those that were about to be replaced. The note may be older than the newest file: it is written after it.
    """
    checkpoints = {path for folder in (work_dir, *others) for path in _candidates(Path(folder))}
    for path in sorted(checkpoints, key=_age, reverse=True):
        if damage(path) is None:
            return path
    return None


def _candidates(work_dir: Path) -> Iterator[Path]:
    yield from _matching(work_dir, PATTERNS)
    noted = _noted(work_dir / NOTE)
    if noted is None:
        return
    # a folder that was moved, or copied, has its own file of that name
    folder = work_dir if (work_dir / noted.name).is_file() else noted.parent
    yield from _matching(folder, (*PATTERNS, re.sub(r'\d+', '*', glob.escape(noted.name))))


def _matching(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for pattern in patterns:
        for ending in ('', OUTDATED):
            yield from (path for path in folder.glob(pattern + ending) if path.is_file())


def _noted(note: Path) -> Path | None:
    """The path in a note; None: there is none, or it was torn by a kill."""
    try:
        # mmengine writes it in the encoding of the locale
        path = Path(note.read_text(encoding=locale.getpreferredencoding(False), errors='replace').strip())
        path.is_file()
    except (OSError, ValueError):  # no note; no name that a file can have
        return None
    return path if path.name else None


def _age(path: Path) -> tuple[float, int]:
    numbers = re.findall(r'\d+', path.stem)
    return path.stat().st_mtime, int(numbers[-1]) if numbers else -1


def checkpoint_to_resume(path: str | Path) -> Path:
    """``path`` itself when it is a whole checkpoint file; raises :class:`InputError` otherwise."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f'there is no checkpoint {path} to resume from; leave the path out to take the newest one')
    reason = damage(path)
    if reason:
        raise InputError(f'{path} {reason}; take an earlier one')
    return path

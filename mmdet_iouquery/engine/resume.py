"""Where an interrupted training goes on from."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ..errors import InputError


def is_complete(path: Path) -> bool:
    """Whether a checkpoint file is whole: its zip directory, which is written last, can be read."""
    return path.is_file() and zipfile.is_zipfile(path)


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest complete training checkpoint of ``work_dir``; None: there is none.

    The one named by mmengine's ``last_checkpoint`` comes first; when that note or its file is torn or gone, the newest
    complete ``epoch_*.pth`` or ``iter_*.pth``.
    """
    work_dir = Path(work_dir)
    note = work_dir / 'last_checkpoint'
    if note.is_file():
        noted = Path(note.read_text().strip())
        # the folder may have been moved since
        for path in (noted, work_dir / noted.name):
            if noted.name and is_complete(path):
                return path
    candidates = [*work_dir.glob('epoch_*.pth'), *work_dir.glob('iter_*.pth')]
    for path in sorted(candidates, key=lambda p: p.stat().st_mtime, reverse=True):
        if is_complete(path):
            return path
    return None


def checkpoint_to_resume(path: str | Path) -> Path:
    """``path`` itself when it is a complete checkpoint file; raises :class:`InputError` otherwise."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f'there is no checkpoint {path} to resume from; leave the path out to take the newest one')
    if not is_complete(path):
        raise InputError(f'{path} is not a complete checkpoint (torn, or no PyTorch file); take an earlier one')
    return path

"""A file backend whose files are whole or absent.

mmengine's own writes in place, so that a process killed then loses its last good checkpoint; ours lost none in 50 kills
(``docs/reliability.md``). To rename takes the standard library alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from ..errors import CheckpointWriteError, goes_on
from .resume import OUTDATED, latest_checkpoint

TEMPORARY = '.tmp'
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@register_backend('atomic')
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written beside their name, flushed to the disk and renamed into place.

    A process killed in the middle leaves the file that was there before, and a ``*.pth.tmp`` that the next write
    removes. Named by ``backend_args=dict(backend='atomic')`` in a ``CheckpointHook``; one run at a time writes to a
    folder.

    mmengine's ``CheckpointHook`` removes its oldest checkpoint before it writes the new one, and would have none in
    between with ``max_keep_ckpts=1``. Here a file that is to be removed is only renamed to ``*.pth.outdated``, until
    the next training checkpoint of its folder, which knows that it is gone, is on the disk. There must be room for one
    file more than are kept.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``, making folders as needed.

        Raises:
            CheckpointWriteError: the system refuses; what was there before is as it was.
        """
        path = Path(filepath)
        temporary = path.with_name(path.name + TEMPORARY)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            self._write(obj, temporary)
            os.replace(temporary, path)
        except OSError as error:
            _remove(temporary)
            _restore_outdated(path.parent)
            raise CheckpointWriteError(cannot_write(path, error, path.parent)) from error
        _flush_folder(path.parent)
        # a best one has no optimiser's state: only the training checkpoint written after it says what is still needed
        if not path.name.startswith('best_'):
            self._remove_outdated(path.parent)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write a text file likewise."""
        self.put(obj.encode(encoding), filepath)

    def remove(self, filepath: str | Path) -> None:
        """Take a file away; what is in it goes once the next training checkpoint of its folder is written."""
        if not self.isfile(filepath):
            super().remove(filepath)  # says what is wrong
        os.replace(filepath, f'{filepath}{OUTDATED}')

    def _write(self, obj: bytes, path: Path) -> None:
        with open(path, 'wb') as f:
            f.write(obj)
            f.flush()
            os.fsync(f.fileno())

    def _remove_outdated(self, folder: Path) -> None:
        for path in folder.glob(f'*{OUTDATED}'):
            _remove(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written in a folder."""
    for path in folder.glob(f'*.pth{TEMPORARY}'):
        _remove(path)


def cannot_write(path: Path, error: OSError, folder: Path) -> str:
    """What to tell a person when the system refuses to write: file, cause, what there is, and how to go on.

    Args:
        path: file or folder that cannot be written.
        error: what the system says.
        folder: of the training's checkpoints.
    """
    if error.errno in NO_ROOM:
        remedy = 'make room there'
    elif error.errno == errno.EFBIG:
        remedy = 'raise the limit of the size of a file (ulimit -f, or the file system)'
    else:
        remedy = 'check that disk'
    newest = latest_checkpoint(folder)
    there_is = f'the newest whole checkpoint is {newest}' if newest else f'there is no whole checkpoint in {folder} yet'
    go_on = goes_on() if newest else 'start again'
    return f'cannot write {path}: {error.strerror or error}; {there_is}; {remedy}, then {go_on}'


def _restore_outdated(folder: Path) -> None:
    """Give files that were to be removed their names back: the newest checkpoint that there is counts on them."""
    for path in folder.glob(f'*{OUTDATED}'):
        with contextlib.suppress(OSError):
            path.rename(path.with_name(path.name[: -len(OUTDATED)]))


def _remove(path: Path) -> None:
    """Remove a file if it is there; one that cannot be removed must not end a training."""
    with contextlib.suppress(OSError):
        path.unlink()


def _flush_folder(folder: Path) -> None:
    """Have a rename survive a loss of power; some systems and file systems know no way to do so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Folders of files that belong together, written whole or not at all."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import InputError


def write_folder(
    folder: str | Path,
    files: Mapping[str, Callable[[Path], object]],
    *,
    absent: Sequence[str] = (),
    force: bool = False,
) -> bool:
    """Write files into a folder, which is made where it is missing; other files of it stay as they are.

    They are written beside, and renamed into place when all are whole: a new folder at once, with all of them.

    Args:
        folder: where to.
        files: name to what writes the file at a path.
        absent: files that do not belong to these: the folder may not have them, and ``force`` removes them.
        force: replace files that are there with another content.

    Returns:
        Whether anything was written; False: the folder holds all of it already.

    Raises:
        InputError: it is no folder, holds one of these files with another content, or the disk refuses.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise InputError(f'{folder} is a file; name a folder')
    # always the same, so that none is left by calls that were killed
    beside = folder / '.part' if folder.is_dir() else folder.with_name(f'.{folder.name}.part')
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, write in files.items():
            write(beside / name)
            with open(beside / name, 'rb+') as file:
                os.fsync(file.fileno())
        return _move(beside, folder, [*files], absent, force)
    except OSError as error:
        raise InputError(
            f'cannot write {folder}: {str(error).splitlines()[0][:160]}; name another folder, or make room'
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _move(beside: Path, folder: Path, names: Sequence[str], absent: Sequence[str], force: bool) -> bool:
    """Rename new files into place; whether there was anything to do."""
    if not folder.exists():
        os.replace(beside, folder)
        return True
    new = [name for name in names if not _same(beside / name, folder / name)]
    stale = [name for name in absent if (folder / name).exists()]
    others = [name for name in new if (folder / name).exists()] + stale
    if others and not force:
        raise InputError(
            f'{folder} holds {", ".join(others)} of something else; choose another folder, or --force (force=True) to '
            'replace what is there'
        )
    for name in stale:
        (folder / name).unlink()
    for name in new:
        os.replace(beside / name, folder / name)
    return bool(new or stale)


def _same(a: Path, b: Path) -> bool:
    return b.is_file() and filecmp.cmp(a, b, shallow=False)

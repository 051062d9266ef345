"""A zip, unpacked beside itself: never outside, never half, and not again while it is the same."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from calendar import timegm
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ...errors import InputError
from ...file_io import write_text

_NOTE = '.unpacked-from'
_LARGEST_RATIO = 200
"""Of bytes unpacked to bytes packed, of the whole file. Text packs to a tenth; what packs so well is to fill a disk."""
_SMALL = 1 << 28  # bytes unpacked that are let through at any ratio


def unpacked(path: Path) -> Path:
    """The folder of a zip's content, unpacked now or by an earlier call; of a single folder inside, that one.

    Raises:
        InputError: it is no whole zip, leads outside its folder, is encrypted or would fill the disk; the folder to
            unpack to is there and not from this zip's earlier state; the disk refuses.
    """
    target = path.with_name(f'{path.stem}-unpacked')
    stat = path.stat()
    state = f'{path.name}\n{stat.st_size}\n{stat.st_mtime_ns}\n'
    if target.exists():
        note = target / _NOTE
        if not note.is_file() or note.read_text(encoding='utf-8').partition('\n')[0] != path.name:
            raise InputError(f'{target} is in the way: {path} is unpacked there; move it, or unpack the file yourself')
        if note.read_text(encoding='utf-8') == state:
            print(f'{path} is unpacked in {target} already')
            return _inner(target)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            partial = path.with_name(f'.{target.name}.partial')  # of a call that was killed, if it is there
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                _unpack(archive, members, partial)
                write_text(partial / _NOTE, state)
                if target.exists():  # from another state of the same zip
                    shutil.rmtree(target)
                partial.rename(target)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f'{path} is not a whole zip file ({error}); copy or download it again') from error
    except OSError as error:
        raise InputError(
            f'{path} cannot be unpacked to {target}: {error.strerror or error}; make room, or unpack it yourself'
        ) from error
    print(f'{path}: {len(members)} files unpacked to {target}')
    return _inner(target)


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files to unpack, by their paths below the folder."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.replace('\\', '/')
        parts = PurePosixPath(name).parts
        if name.startswith('/') or '..' in parts or any(':' in part or '\0' in part for part in parts):
            raise InputError(
                f'{path} has the file {info.filename!r}, which would be unpacked outside its folder; look into it, and '
                'unpack it yourself if you trust it'
            )
        if info.flag_bits & 1:
            raise InputError(f'{path} is encrypted; unpack it yourself, and name the folder')
        if not name.endswith('/') and '__MACOSX' not in parts:
            members[name] = info
    size = sum(info.file_size for info in members.values())
    packed = max(1, path.stat().st_size)
    if size > _SMALL and size > _LARGEST_RATIO * packed:
        raise InputError(
            f'{path} would grow from {packed / 1e6:.0f} to {size / 1e6:.0f} MB, which no set of images does; look into '
            'it, and unpack it yourself if you trust it'
        )
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise InputError(f'{path} needs {size / 1e6:.0f} MB beside itself, and {free / 1e6:.0f} MB are free; make room')
    return members


def _unpack(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    """Write plain files, links as well; a reader of a member ends at the size that was added up, and checks its sum."""
    for name, info in tqdm(members.items(), desc='unpacking', unit='file', disable=None, leave=False):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, open(target, 'wb') as file:
            shutil.copyfileobj(source, file, 1 << 20)
        stamp = _time(info)
        os.utime(target, (stamp, stamp))  # so that the same file unpacked again is the same input


def _time(info: zipfile.ZipInfo) -> float:
    try:
        return timegm((*info.date_time, 0, 0, 0))
    except ValueError:
        return 0


def _inner(folder: Path) -> Path:
    """The only folder inside, where there is nothing else: what most programs put around what they pack."""
    inside = [child for child in folder.iterdir() if not child.name.startswith('.')]
    return _inner(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder

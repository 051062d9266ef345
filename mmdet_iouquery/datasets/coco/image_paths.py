"""Whether the image files that a COCO JSON names are there, and what they are called on the disk if not."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError

_SHOWN = 5  # names that a message lists


def check_files_exist(ann_file: Path, file_names: Sequence[str], image_dir: Path) -> None:
    """Raise InputError for missing image files; each folder is listed once, which is far faster than asking for each.

    Args:
        ann_file: whose images they are, for the message.
        file_names: as the JSON has them.
        image_dir: folder that they are relative to.
    """
    if not image_dir.is_dir():
        raise InputError(f'{ann_file}: its image folder {image_dir} does not exist; correct data_prefix=dict(img=...)')
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in file_names:
        folder, name = os.path.split(path)
        by_folder[folder].append(name)
    missing = [
        os.path.join(folder, name)
        for folder, names in by_folder.items()
        for name in _absent(os.path.join(image_dir, folder), names)
    ]
    if missing:
        listed = ', '.join(map(repr, missing[:_SHOWN])) + (', ...' if len(missing) > _SHOWN else '')
        raise InputError(
            f'{ann_file}: {len(missing)} of {len(file_names)} image files are not in {image_dir}: {listed}; '
            + (_name_on_disk(image_dir, missing[0]) or 'correct the image folder or the file names')
        )


def _absent(folder: str, names: list[str]) -> list[str]:
    """Names that lead to no file. Some file systems take another spelling than they list, so the rest is asked for."""
    present = {entry.name for entry in _entries(folder) if entry.is_file()}
    return [name for name in names if name not in present and not os.path.isfile(os.path.join(folder, name))]


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (OSError, ValueError):  # no such folder; a name that no file system takes
        return []


def _name_on_disk(image_dir: Path, name: str) -> str | None:
    """What is to be written instead of a name that leads nowhere, and why; None: nothing like it is there."""
    slashed = name.replace('\\', '/')
    parts: list[str] = []
    for part in slashed.split('/'):
        listed = [entry.name for entry in _entries(image_dir.joinpath(*parts))]
        parts.append(next((entry for entry in listed if _key(entry) == _key(part)), part))
    spelt = '/'.join(parts)
    if (image_dir / spelt).is_file():
        return f'on the disk it is {spelt!r} ({_difference(name, spelt)}): write the names as the files are called'
    base = slashed.rpartition('/')[2]
    if base != name and (image_dir / base).is_file():
        return f'{base!r} is there: write the names without the folder, or correct data_prefix=dict(img=...)'
    return None


def _key(name: str) -> str:
    return unicodedata.normalize('NFC', name).casefold()


def _difference(name: str, name_on_disk: str) -> str:
    if name.replace('\\', '/') == name_on_disk:
        return 'a slash instead of a backslash'
    if unicodedata.normalize('NFC', name) == unicodedata.normalize('NFC', name_on_disk):
        form = 'decomposed, NFD' if unicodedata.is_normalized('NFD', name_on_disk) else 'composed, NFC'
        return f'the same letters in another Unicode form: {form}'
    return 'other upper and lower case'

"""The settings of the run that a work folder holds, and how those asked for now differ from them.

mmengine writes the resolved config of every start into the work folder, over that of the start before, so it does not
tell with which settings the checkpoints there were trained. ``settings.json`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config_options import differences, flattened
from ..datasets.coco.json_file import read_json
from ..errors import InputError
from ..file_io import checksum, write_json

NAME = 'settings.json'
_OF_THE_START = ('work_dir', 'resume', 'launcher', 'sharing_strategy')  # what may differ from start to start of one run
_SUMS = 'checksums of annotation files'  # a name that no setting has


def settings_of(cfg: Config) -> dict[str, Any]:
    """Every value of a config by its dotted key, without those that belong to one start of a run alone."""
    return flattened({key: value for key, value in cfg.to_dict().items() if key not in _OF_THE_START})


def annotation_checksums(settings: Mapping[str, Any]) -> dict[str, str]:
    """Checksums of the annotation files of training and validation that flat settings name by whole paths."""
    keys = [key for key in settings if key.startswith(('train_', 'val_')) and key.endswith('.ann_file')]
    paths = {settings[key] for key in keys if isinstance(settings[key], str) and Path(settings[key]).is_absolute()}
    return {path: checksum(Path(path)) for path in sorted(paths) if Path(path).is_file()}


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Paths of the files that have other checksums than before; a file that was not recorded has not changed."""
    return [path for path, value in now.items() if before.get(path, value) != value]


def record(folder: Path, settings: Mapping[str, Any], checksums: Mapping[str, str] | None = None) -> None:
    """Write down the settings of the run that a folder holds from now on, and :func:`annotation_checksums`."""
    write_json(folder / NAME, {**settings, **({_SUMS: checksums} if checksums else {})})


def recorded(folder: Path) -> dict[str, Any] | None:
    """The settings of the run that a folder holds; None: they were not written down."""
    path = folder / NAME
    return {key: value for key, value in read_json(path).items() if key != _SUMS} if path.is_file() else None


def recorded_checksums(folder: Path) -> dict[str, str]:
    """The checksums of the annotation files that the run in a folder was trained on; empty: they were not recorded."""
    path = folder / NAME
    return read_json(path).get(_SUMS, {}) if path.is_file() else {}


def has_trained(folder: Path) -> bool:
    """Whether there are checkpoints in a work folder."""
    return any(folder.glob('*.pth'))


def finished_before(note: Path, settings: Mapping[str, Any], restart: bool) -> bool:
    """Whether an outcome of the same settings is there, as the note says that is written after it.

    Args:
        note: JSON file of the settings; it is removed where the outcome is to be made anew.
        settings: that are asked for, flat.
        restart: make it anew, whatever there is.

    Raises:
        InputError: there is one of other settings, and ``restart`` is False.
    """
    if not note.is_file():
        return False
    differing = differences(read_json(note), settings)
    if differing and not restart:
        raise InputError(
            f'{note.parent} holds an outcome of other settings ({differing}); name another --out, or replace it with '
            '--restart'
        )
    if restart:
        note.unlink()
    return not restart

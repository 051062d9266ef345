"""Whether a set is still the one that trainings in their folders began with: :func:`same_data_check`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ...datasets.coco.json_file import read_coco
from ...engine.run_settings import changed_files, has_trained, recorded_checksums
from ...errors import InputError
from ...file_io import checksum
from .coco_set import Check


def same_data_check(data: Path, folders: Iterable[Path]) -> Check | None:
    """What :func:`~mmdet_iouquery.read_data` is to check before it writes; None: no training there recorded its data.

    It raises :class:`InputError` where one of them was trained on other annotations.

    Args:
        data: the set, for messages.
        folders: work folders, which need not exist.
    """
    trained = {folder: recorded_checksums(folder) for folder in folders if has_trained(folder)}

    def check(now: Mapping[str, str], images: int | None) -> None:
        for folder, before in trained.items():
            changed = changed_files(before, now)
            if not changed:
                continue
            then = None if images is None else _count(before, now)
            of_files = f'in {", ".join(changed)}'
            difference = of_files if then in (None, images) else f'{images} images now, {then} then'
            raise InputError(
                f'{folder} holds a run on {data} as it was before it changed ({difference}); begin anew on the set as '
                'it is with --restart, name another --work-dir, or put the set back'
            )

    return check if any(trained.values()) else None


def _count(before: Mapping[str, str], paths: Iterable[str]) -> int | None:
    """Images in annotation files that are still as recorded; None: they are not."""
    files = [Path(path) for path in paths]
    if not all(file.is_file() and checksum(file) == before.get(str(file)) for file in files):
        return None
    return sum(len(read_coco(file).images) for file in files)

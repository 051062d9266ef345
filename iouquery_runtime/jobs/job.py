"""A job's folder, and ``job.json`` in it: what is done to which images, how far it is, and with which versions.

::

    OUT/job.json      OUT/manifest/NNNNN.parquet    OUT/parts/NNNNNN.parquet    OUT/coco.json, OUT/results.json
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

if sys.platform != 'win32':
    import fcntl

from ..errors import InputError, WriteError

FORMAT = 1
LISTING, RUNNING, STOPPED, FINISHED = 'listing', 'running', 'stopped', 'finished'
"""A process that is killed leaves the first or the second."""
_LOCK, _RECORD = '.lock', 'job.json'
_OWN = {_LOCK, _RECORD, f'.{_RECORD}.tmp', 'manifest', 'parts'}
_SETTINGS = {
    'model': 'the file of the model',
    'sha256': "the model's SHA-256",
    'config': "the config's SHA-256",
    **{name: f'--{name.replace("_", "-")}' for name in ('score_thr', 'images', 'root', 'shard', 'dtype', 'prepare')},
}
"""What a user knows them by."""
_PACKAGES = ('mmdet-iouquery', 'numpy', 'Pillow', 'pyarrow', 'ray', 'onnxruntime', 'openvino', 'torch')


class Job:
    """A job's folder.

    Args:
        folder: ``OUT``, which need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest, self.parts = folder, folder / 'manifest', folder / 'parts'
        self.record: dict[str, Any] = self._read()

    @property
    def state(self) -> str | None:
        """``LISTING``, ``RUNNING``, ``STOPPED`` or ``FINISHED``; None: there is no job yet."""
        return self.record.get('state')

    def check(self, settings: dict[str, Any], resume: bool) -> None:
        """Whether the folder is free for a job of these settings, or holds it.

        Raises:
            InputError: it holds another one, or this one unfinished and ``resume`` is False; or other files.
        """
        if self.state is None:
            others = sorted(set(os.listdir(self.folder)) - _OWN) if self.folder.is_dir() else []
            if others or self.folder.is_file():
                holds = f'holds other files ({", ".join(others[:3])})' if others else 'is a file'
                raise InputError(f'{self.folder} {holds}; name a folder of its own with --out')
            return
        differing = _differences(self.record['settings'], settings)
        if differing:
            raise InputError(
                f'{self.folder} holds another job: {"; ".join(differing)}; name another folder with --out, or take the '
                'settings of that job'
            )
        if self.state in (RUNNING, STOPPED) and not resume:
            raise InputError(f'{self.folder} holds this job, unfinished; --resume does what is missing')

    def start(self, settings: dict[str, Any], **known: Any) -> None:
        """Record a job whose images are going to be listed."""
        self._write(
            dict(format=FORMAT, state=LISTING, settings=settings, **known, started=_now(), versions=_versions())
        )
        for folder in (self.manifest, self.parts):
            shutil.rmtree(folder, ignore_errors=True)

    def update(self, **changes: Any) -> None:
        """Record changes.

        Raises:
            WriteError: the disk is full or faulty.
        """
        if changes.get('state') == FINISHED:
            changes['finished'] = _now()
        self._write({**self.record, **changes})

    def drop(self) -> None:
        """Remove a job without rows, as if it had not been begun."""
        for folder in (self.manifest, self.parts):
            shutil.rmtree(folder, ignore_errors=True)
        for name in (_RECORD, f'.{_RECORD}.tmp'):
            (self.folder / name).unlink(missing_ok=True)
        self.record = {}

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder, and keep other processes out of it; the claim ends with this one, however.

        A folder that was made and is empty at the end is removed.

        Raises:
            InputError: another process is inside; the folder cannot be made.
        """
        existed = self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / _LOCK, 'a+', encoding='utf-8')  # noqa: SIM115  closed below
        except OSError as error:
            why = error.strerror or error
            raise InputError(
                f'{self.folder} cannot be made or written to: {why}; name another folder with --out'
            ) from error
        with lock:
            self._lock(lock)
            self.record = self._read()  # another process may have ended since
            try:
                yield
            finally:
                if not existed and os.listdir(self.folder) == [_LOCK]:
                    (self.folder / _LOCK).unlink()
                    self.folder.rmdir()

    def _lock(self, lock: Any) -> None:
        if sys.platform == 'win32':
            return
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise InputError(
                    f'another process writes to {self.folder} at this moment; wait for it, or name another --out'
                ) from error

    def _read(self) -> dict[str, Any]:
        path = self.folder / _RECORD
        try:
            record = json.loads(path.read_text(encoding='utf-8'))
        except FileNotFoundError:
            return {}
        except NotADirectoryError:
            return {}
        except (OSError, ValueError) as error:
            raise InputError(f'{path} cannot be read: {error}; name another folder with --out') from error
        if not isinstance(record, dict) or record.get('format') != FORMAT or 'settings' not in record:
            raise InputError(f'{path} was written by another program or version; name another folder with --out')
        return record

    def _write(self, record: dict[str, Any]) -> None:
        path, temporary = self.folder / _RECORD, self.folder / f'.{_RECORD}.tmp'
        try:
            with open(temporary, 'w', encoding='utf-8') as file:
                file.write(json.dumps(record, indent=1, ensure_ascii=False) + '\n')
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise cannot_write(path, error) from error
        self.record = record


def cannot_write(path: Path, error: OSError) -> WriteError:
    """The sentence for a file of the job that the disk does not take."""
    why = os.strerror(error.errno) if error.errno else str(error)
    return WriteError(f'{path} cannot be written: {why}; make room, or mount the disk again, and go on with --resume')


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    names = [*old, *(name for name in new if name not in old)]
    return [
        f'{_SETTINGS.get(name, name)} was {_shown(old.get(name))}, and now is {_shown(new.get(name))}'
        for name in names
        if old.get(name) != new.get(name)
    ]


def _shown(value: Any) -> str:
    if value is None:
        return 'not given'
    text = json.dumps(value, ensure_ascii=False)
    return f'{text[:17]}..."' if isinstance(value, str) and len(text) >= 66 and text[1:-1].isalnum() else text


def _now() -> str:
    return time.strftime('%Y-%m-%dT%H:%M:%S%z')


def _versions() -> dict[str, str]:
    versions = {'Python': platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions

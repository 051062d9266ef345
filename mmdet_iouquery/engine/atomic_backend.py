"""A file backend whose files are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend


@register_backend('atomic')
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written beside their name, flushed to the disk and renamed into place.

    A process killed in the middle leaves the file that was there before, and a ``*.tmp`` that the next write removes.
    Named by ``backend_args=dict(backend='atomic')`` in a ``CheckpointHook``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj`` to ``filepath``, making folders as needed."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + '.tmp')
        with open(temporary, 'wb') as f:
            f.write(obj)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)

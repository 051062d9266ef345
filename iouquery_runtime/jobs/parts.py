"""Finished rows on disk: ``parts/NNNNNN.parquet``, each whole or absent.

Columns: id int64; path string; width, height int32, px of the image as it stands upright; boxes list<list<float>>, the
corners x1, y1, x2, y2 in px of each detection; scores list<float>; labels list<int32>, the classes' numbers from 0;
error string. Of an image that could not be read, error says why, width and height are 0 and the lists empty; of others
error is null. The names of the classes are in the schema's metadata, under ``names``, a JSON list.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

from ..errors import InputError, reason
from ..results import Result
from .job import cannot_write

COLUMNS = pa.schema(
    [
        pa.field('id', pa.int64(), nullable=False),
        pa.field('path', pa.string(), nullable=False),
        ('width', pa.int32()),
        ('height', pa.int32()),
        ('boxes', pa.list_(pa.list_(pa.float32()))),
        ('scores', pa.list_(pa.float32())),
        ('labels', pa.list_(pa.int32())),
        ('error', pa.string()),
    ]
)
ROWS, SECONDS = 10_000, 30.0
"""A part is written when it has so many rows, or the first of them is so old."""
ROW_GROUP = 1000
"""Rows that are encoded at a time, which takes five times their memory."""


def rows_of(ids: Sequence[int], paths: Sequence[str], results: Sequence[Result]) -> pa.Table:
    """Rows of ``COLUMNS``, one a result."""
    ends = np.cumsum([0, *map(len, results)]).astype(np.int32)

    def lists(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(ends), values)

    boxes = np.concatenate([np.zeros((0, 4)), *(result.boxes for result in results)]).astype(np.float32)
    box_lists = pa.ListArray.from_arrays(
        pa.array(np.arange(len(boxes) + 1, dtype=np.int32) * 4), pa.array(boxes.ravel())
    )
    scores = np.concatenate([np.zeros(0), *(result.scores for result in results)]).astype(np.float32)
    labels = np.concatenate([np.zeros(0), *(result.labels for result in results)]).astype(np.int32)
    columns = [
        pa.array(ids, pa.int64()),
        pa.array(paths, pa.string()),
        pa.array([result.width for result in results], pa.int32()),
        pa.array([result.height for result in results], pa.int32()),
        lists(box_lists),
        lists(pa.array(scores)),
        lists(pa.array(labels)),
        pa.array([result.error for result in results], pa.string()),
    ]
    return pa.table(columns, schema=COLUMNS)


class PartsWriter:
    """Gathers rows, and writes them.

    Args:
        folder: of the parts; numbers go on from those that are there.
        names: of the classes.
        rows: of a part.
        seconds: that a row waits at most, as long as others come.
    """

    def __init__(self, folder: Path, names: Sequence[str], rows: int = ROWS, seconds: float = SECONDS) -> None:
        self._folder, self._rows, self._seconds = folder, rows, seconds
        self._schema = COLUMNS.with_metadata({'names': json.dumps([*names], ensure_ascii=False)})
        self._waiting: list[pa.Table] = []
        self._num_rows = 0  # of what waits
        self._since = 0.0
        numbers = [int(path.stem) for path in part_files(folder)]
        self._next = max(numbers, default=-1) + 1

    def add(self, table: pa.Table) -> None:
        """Take rows, and write a part where it is time to.

        Raises:
            WriteError: the disk is full or faulty; the rows are kept.
        """
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(table)
        self._num_rows += table.num_rows
        is_old = time.monotonic() - self._since >= self._seconds
        if is_old or self._num_rows >= self._rows:
            self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            WriteError: the disk is full or faulty; the rows are kept.
        """
        if not self._waiting:
            return
        path = self._folder / f'{self._next:06d}.parquet'
        if not path.exists():  # it is there where a signal came between here and the end of this function
            _write_synced(pa.concat_tables(self._waiting).cast(self._schema).combine_chunks(), path)
        self._waiting.clear()
        self._num_rows = 0
        self._next += 1


def part_files(folder: Path) -> list[Path]:
    """Those that are whole, by number."""
    return sorted(path for path in folder.glob('*.parquet') if path.stem.isdecimal())


def count_rows(folder: Path) -> int:
    """Of all parts, by their metadata.

    Raises:
        InputError: a part cannot be read.
    """
    return sum(_opened(path, parquet.read_metadata).num_rows for path in part_files(folder))


def part_tables(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """All rows, or some of their columns, part by part.

    Raises:
        InputError: a part cannot be read.
    """
    for path in part_files(folder):
        yield _opened(path, lambda path: parquet.read_table(path, columns=None if columns is None else [*columns]))


def remove_errors(folder: Path) -> None:
    """Remove the rows of images that could not be read, so that these are to be done again.

    Raises:
        InputError: a part cannot be read.
        WriteError: the disk is full or faulty; each part is as it was, or without such rows.
    """
    for path, errors in zip(part_files(folder), part_tables(folder, ['error'])):
        readable = compute.is_null(errors['error'])
        if not compute.any(readable).as_py():
            path.unlink()
        elif not compute.all(readable).as_py():
            _write_synced(_opened(path, parquet.read_table).filter(readable), path)


def _opened(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f'{path} cannot be read: {reason(error)}; remove it, and --resume does its images again'
        ) from error


def _write_synced(table: pa.Table, path: Path) -> None:
    """Write, and have it on the disk before it has its name."""
    temporary = path.with_name(f'.{path.name}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, 'wb') as file:
            parquet.write_table(table, file, row_group_size=ROW_GROUP)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == 'nt':  # where folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

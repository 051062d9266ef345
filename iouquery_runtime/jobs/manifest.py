"""The images of a job on disk, in files of ``ROWS``, and which of them are still to be done.

Of all images together only the ids are held in memory, 9 bytes each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, parquet

from ..errors import InputError
from .job import cannot_write
from .sources import ID_RANGE, Image

ROWS = 10_000
SCHEMA = pa.schema([pa.field('id', pa.int64(), nullable=False), pa.field('path', pa.string(), nullable=False)])
_MASK = (1 << 64) - 1


class Shard(NamedTuple):
    """One of ``total`` parts of the images, which ids fall into by their hash."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From ``i/n``, i from 0.

        Raises:
            InputError: it is something else.
        """
        number, _, total = text.partition('/')
        if not (number.isdecimal() and total.isdecimal() and int(number) < int(total)):
            raise InputError(f'--shard {text}: name i/n, with i from 0 to n - 1, such as 0/4, 1/4, 2/4 and 3/4')
        return cls(int(number), int(total))

    def of(self, images: Iterable[Image]) -> Iterator[Image]:
        """Those that fall into it."""
        return (image for image in images if hash64(image.id) % self.total == self.number)

    def __str__(self) -> str:
        return f'{self.number}/{self.total}'


def hash64(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): ids that follow each other spread evenly."""
    value &= _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def write_manifest(images: Iterable[Image], folder: Path) -> NDArray[Any]:
    """Write all images, and give their ids, int64, sorted.

    Raises:
        InputError: two images have one id.
        WriteError: the disk is full or faulty.
    """
    ids = [np.zeros(0, np.int64)]
    for number, table in enumerate(_tables(images)):
        _write(table, folder / f'{number:05d}.parquet')
        ids.append(table['id'].to_numpy())
    all_ids = np.sort(np.concatenate(ids))
    twice = all_ids[1:][all_ids[1:] == all_ids[:-1]]
    if len(twice):
        raise InputError(_duplicates(folder, twice))
    return all_ids


def manifest_tables(folder: Path) -> Iterator[pa.Table]:
    """What was written, file by file."""
    for path in sorted(folder.glob('*.parquet')):
        yield parquet.read_table(path)


def manifest_ids(folder: Path) -> NDArray[Any]:
    """The ids of what was written, int64, sorted."""
    ids = [parquet.read_table(path, columns=['id'])['id'].to_numpy() for path in sorted(folder.glob('*.parquet'))]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *ids]))


def difference(images: Iterable[Image], folder: Path) -> str | None:
    """How images differ from those that were written: both numbers, and an example; None: they do not.

    Neither their order counts nor whether they are named twice.
    """
    remaining, written = Remaining(manifest_ids(folder)), manifest_tables(folder)
    num_then, num_now, example = remaining.count, 0, None
    for table in _tables(images):
        num_now += len(table)
        then, ids = next(written, None), table['id'].to_numpy()
        known = remaining.is_known(ids)
        remaining.finish(ids[known])
        if not example and not (then and table.equals(then)):
            paths_then = dict(zip(then['id'].to_pylist(), then['path'].to_pylist())) if then else {}
            for image_id, path, is_old in zip(ids.tolist(), table['path'].to_pylist(), known):
                path_then = paths_then.get(image_id, path)
                if not is_old or path != path_then:
                    example = f'{path} has the id of {path_then}' if is_old else f'{path} is new'
                    break
    gone = next(remaining.of(manifest_tables(folder)), None)
    if not example and gone:
        example = f'{gone["path"][0].as_py()} is gone'
    return example and f'it began with {num_then}, and there are {num_now} now ({example})'


class Remaining:
    """Which images are still to be done.

    Args:
        ids: of all images, int64, sorted, each once; at least one.
    """

    def __init__(self, ids: NDArray[Any]) -> None:
        self._ids, self._done = ids, np.zeros(len(ids), bool)
        self.count = len(ids)

    def is_known(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Which of ``ids`` (N,) are of the job."""
        return self._ids[self._positions(ids)] == ids

    def mask(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Which of ``ids`` (N,) are of the job and not done."""
        return self.is_known(ids) & ~self._done[self._positions(ids)]

    def finish(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Count ``ids`` (N,) as done, and tell which of them were not before; the second of a pair in it was.

        Raises:
            ValueError: one of them is no image of the job.
        """
        if not self.is_known(ids).all():
            raise ValueError(f'image {ids[~self.is_known(ids)][0]} is none of this job')
        first = np.zeros(len(ids), bool)
        first[np.unique(ids, return_index=True)[1]] = True
        fresh = first & ~self._done[self._positions(ids)]
        self._done[self._positions(ids)] = True
        self.count -= int(fresh.sum())
        return fresh

    def of(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The rows of a manifest that are to be done, file by file, without empty ones."""
        for table in tables:
            kept = self.mask(table['id'].to_numpy())
            if kept.any():
                yield table if kept.all() else table.filter(pa.array(kept))

    def _positions(self, ids: NDArray[Any]) -> NDArray[Any]:
        return np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)


def _tables(images: Iterable[Image]) -> Iterator[pa.Table]:
    """Of ``ROWS`` images each."""
    rows = iter(images)
    while chunk := list(islice(rows, ROWS)):
        outside = next((image for image in chunk if not -ID_RANGE <= image.id < ID_RANGE), None)
        if outside:
            raise InputError(f'the id {outside.id} of {outside.path} does not fit in 64 bits; number the images again')
        yield pa.table([[image.id for image in chunk], [image.path for image in chunk]], schema=SCHEMA)


def _write(table: pa.Table, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)
    except OSError as error:
        raise cannot_write(path, error) from error


def _duplicates(folder: Path, twice: NDArray[Any]) -> str:
    """Name two images of the first id that is there more than once."""
    paths: list[str] = []
    for table in manifest_tables(folder):
        paths += table.filter(compute.equal(table['id'], int(twice[0])))['path'].to_pylist()
    same = 'the same image' if paths[0] == paths[1] else 'two images'
    return (
        f'ids that stand for more than one image: {len(np.unique(twice))}, first {twice[0]}, of {paths[0]} and '
        f'{paths[1]} ({same}); give each image an id of its own, once'
    )

"""What runs in a worker: reads images, detects, gives rows. An image that cannot be read is a row with its error.

A worker that was started again may be given the batch on which it died. So it does its first batches one image at a
time; an image on which it dies again and again gets a row that says so, and the others of its batch their detections.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..detector import Detector
from ..errors import InputError, WorkersError, reason
from ..files import sha256
from ..preprocess import read_image, resized
from ..results import Result
from .filesystems import read_bytes
from .parts import rows_of
from .sources import Root

DEATHS = 3
"""A worker dies on an image alone so often, after it has on its batch, before the image is given up."""
IN_FLIGHT = 4
"""Batches that a worker has at a time: one that it does, and what waits for it. Ray Data looks ten times a second for
what is done, so that with fewer a small model would wait."""
FAILURES = 20
"""Images on end that the detector itself fails on, as no one image explains it."""


_GIVEN_UP = f'the worker died on this image {DEATHS + 1} times'


class Prepared(NamedTuple):
    """An image as a detector takes it."""

    pixels: NDArray[Any]
    """(H, W, 3) uint8."""
    width: int
    """Of the original, upright, in px."""
    height: int
    about: Any = None
    """What else the detector wants to know; to be pickled."""


Detect = Callable[[Sequence[Prepared]], list[Result]]


class Opener(Protocol):
    """A detector that is opened in each worker; it is pickled."""

    @property
    def names(self) -> Sequence[str]:
        """Of the classes, by label."""

    @property
    def settings(self) -> dict[str, Any]:
        """What detections depend on, for JSON: another value would be another job."""

    def prepare(self, data: bytes, name: str) -> Prepared:
        """The content of an image file; ``name`` is for messages.

        Raises:
            InputError: it is no image.
        """

    def open(self) -> Detect:
        """The detector.

        Raises:
            InputError: it cannot run here.
        """


class Attempts(Protocol):
    """What all workers know of each other's attempts; it outlives a worker."""

    def was_started_again(self) -> bool:
        """Whether the worker that asks has died before."""

    def begin(self, key: str) -> int:
        """Count one more, and give the number."""

    def end(self, *keys: str) -> None:
        """Forget these."""

    def give_up(self, error: InputError) -> None:
        """Say why the job cannot go on; Ray hands on no more of an error than its text."""


class ExportedOpener:
    """An exported file, for workers without torch.

    Args:
        model: an ``.onnx`` or ``.xml`` file; it is opened here once, and not kept.
        score_thr: detections score above it; None: what the file says.
        threads: of each worker.
        gpu: run on CUDA; False: on the CPU.

    Raises:
        InputError: the file is missing, damaged or of another maker, or cannot run so.
    """

    def __init__(self, model: str, *, score_thr: float | None = None, threads: int = 1, gpu: bool = False) -> None:
        self._path, self._score_thr, self._threads = str(Path(model).absolute()), score_thr, threads
        if gpu and self._path.lower().endswith('.xml'):
            raise InputError(f'{model} is run by OpenVINO, on the CPU; export an .onnx file for --gpus-per-worker 1')
        self._providers = None if self._path.lower().endswith('.xml') else _providers(gpu)
        detector = Detector(self._path, threads=threads, providers=self._providers and _providers(gpu=False))
        detector.detect_resized([np.zeros((*detector.image_size, 3), np.uint8)], [(1, 1)], score_thr)
        self.names = detector.names
        self._size, self._resize = detector.image_size, detector.metadata.resize
        self._sums = {path: sha256(Path(path)) for path in _files(self._path)}
        self.settings = dict(model=Path(model).name, sha256='+'.join(self._sums.values()), score_thr=score_thr)

    def prepare(self, data: bytes, name: str) -> Prepared:
        pixels = read_image(data, name)
        return Prepared(resized(pixels, *self._size, self._resize), pixels.shape[1], pixels.shape[0])

    def open(self) -> Detect:
        detector = Detector(self._path, threads=self._threads, providers=self._providers)
        for path, expected in self._sums.items():
            if sha256(Path(path)) != expected:
                raise InputError(f'{path} has changed, or is another file on this machine; copy the same to all')

        def detect(images: Sequence[Prepared]) -> list[Result]:
            results, most = [], detector.batch_size or len(images)
            for first in range(0, len(images), most):
                batch = images[first : first + most]
                sizes = [(image.width, image.height) for image in batch]
                results += detector.detect_resized([image.pixels for image in batch], sizes, self._score_thr)
            return results

        return detect


class Item(NamedTuple):
    """An image on its way: read, or why not."""

    id: int
    path: str
    image: Prepared | None
    error: str | None


class _Careful:
    """Runs rows of a batch at once, or, in a worker that was started again, the first ones each by itself.

    Args:
        attempts: shared by all workers.
        stage: of the work, which counts by itself.
        given_up: the value of a row on which workers have died too often.
    """

    def __init__(self, attempts: Attempts, stage: str, given_up: Callable[[Any], Any]) -> None:
        self._attempts, self._stage, self._given_up = attempts, stage, given_up
        self._batches = IN_FLIGHT if attempts.was_started_again() else 0

    def __call__(self, rows: Sequence[Any], run: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
        """What ``run`` gives, one value a row; rows begin with the id."""
        if not self._batches:
            return run(rows)
        self._batches -= 1
        return [value for row in rows for value in self._alone(row, run)]

    def _alone(self, row: Any, run: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
        key = f'{self._stage} {row[0]}'
        if self._attempts.begin(key) > DEATHS:  # which stays, as a death on a later row would have it tried again
            return [self._given_up(row)]
        values = run([row])
        self._attempts.end(key)
        return values


class Reading:
    """Reads and decodes: rows (id, path) to rows with pixels."""

    def __init__(self, opener: Opener, root: Root, attempts: Attempts) -> None:
        self._read = _reader(opener, root)
        self._careful = _Careful(attempts, 'read', lambda row: Item(row[0], row[1], None, _GIVEN_UP))

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = [(row['id'], row['path']) for row in table.to_pylist()]
        items = self._careful(rows, lambda some: [self._read(*row) for row in some])
        columns = [[item.id for item in items], [item.path for item in items], [pickle.dumps(item) for item in items]]
        return pa.table(columns, names=['id', 'path', 'item'])


class Detecting:
    """Detects: what :class:`Reading` gives, or rows (id, path), to rows of :data:`~.parts.COLUMNS`."""

    def __init__(self, opener: Opener, root: Root, attempts: Attempts) -> None:
        self._opener, self._attempts = opener, attempts
        self._read = _reader(opener, root)
        self._careful = _Careful(attempts, 'detect', lambda row: Result.failed(_GIVEN_UP, path=row[1]))
        self._detect: Detect | None = None
        self._failed_on_end = 0

    def __call__(self, table: pa.Table) -> pa.Table:
        try:
            if self._detect is None:
                self._open()
            return self._rows(table)
        except InputError as error:
            self._attempts.give_up(error)
            raise

    def _rows(self, table: pa.Table) -> pa.Table:
        if 'item' in table.column_names:
            rows = [pickle.loads(item) for item in table['item'].to_pylist()]
            results = self._careful(rows, self._of_items)
        else:
            rows = [(row['id'], row['path']) for row in table.to_pylist()]
            results = self._careful(rows, lambda some: self._of_items([self._read(*row) for row in some]))
        return rows_of([row[0] for row in rows], [row[1] for row in rows], results)

    def _open(self) -> None:
        tried = self._attempts.begin('open')
        if tried > 3 * DEATHS:
            raise WorkersError(
                f'workers died {tried - 1} times while they opened the model; give them more memory, or take fewer '
                'with --workers'
            )
        self._detect = self._opener.open()
        self._attempts.end('open')

    def _of_items(self, items: Sequence[Item]) -> list[Result]:
        results = [Result.failed(item.error or '', path=item.path) for item in items]
        readable = [i for i, item in enumerate(items) if item.image is not None]
        for i, result in zip(readable, self._results([items[i] for i in readable])):
            results[i] = result
        return results

    def _results(self, items: Sequence[Item]) -> list[Result]:
        """What the detector finds; where it fails on a batch, each image is tried by itself."""
        assert self._detect is not None
        if not items:
            return []
        try:
            results = self._detect([item.image for item in items if item.image is not None])
        except Exception as error:  # of any library that runs a graph
            if len(items) > 1:
                return [result for item in items for result in self._results([item])]
            self._failed_on_end += 1
            message = f'the detector failed on {items[0].path}: {type(error).__name__}: {reason(error)}'
            if self._failed_on_end >= FAILURES:
                raise WorkersError(
                    f'{message}; so it did on the {FAILURES - 1} images before; try one of them with python -m '
                    'iouquery_runtime'
                ) from error
            return [Result.failed(message, path=items[0].path)]
        self._failed_on_end = 0
        return results


def _reader(opener: Opener, root: Root) -> Callable[[int, str], Item]:
    def read(image_id: int, path: str) -> Item:
        try:
            return Item(image_id, path, opener.prepare(read_bytes(*root.located(path)), path), None)
        except InputError as error:
            return Item(image_id, path, None, str(error))

    return read


def _files(model: str) -> list[str]:
    return [model] if model.lower().endswith('.onnx') else [model, str(Path(model).with_suffix('.bin'))]


def _providers(gpu: bool) -> list[str]:
    return ['CUDAExecutionProvider', 'CPUExecutionProvider'] if gpu else ['CPUExecutionProvider']

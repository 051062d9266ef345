"""A job from its settings to its files.

Listing, workers, one writer: rows stream from the workers to this process, which alone writes. So a row is on disk
once, whatever dies; what is not in a whole part is done again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image as PILImage
from tqdm import tqdm

from ..command import Terminated
from ..errors import InputError, WorkersError
from . import engine
from .coco import write_coco, write_results
from .engine import Size
from .filesystems import read_bytes
from .job import FINISHED, LISTING, RUNNING, STOPPED, Job
from .manifest import Remaining, Shard, difference, manifest_ids, manifest_tables, write_manifest
from .parts import ROWS, SECONDS, PartsWriter, count_rows, part_tables, remove_errors
from .sources import Image, Root, Source
from .worker import Opener

FORMATS = ('parquet', 'coco')
_BAR = '{l_bar}{bar}| {n_fmt}/{total_fmt} images [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]'
"""tqdm's own, but always in images/s, however slow."""
LOOKED_AT = 20
"""Images that a dry run reads, and of which one has to be there."""
SHOWN = 10
"""Errors that are printed; all are in the rows."""


@dataclass(frozen=True)
class Request:
    """What is to be done."""

    images: str
    """A folder, a pattern, a manifest, an annotation file, or a URI of such."""
    out: Path
    """The job's folder."""
    root: str | None = None
    """Where paths in a manifest or annotation file begin; None: in its own folder."""
    shard: Shard | None = None
    """The part of the images that is meant; None: all."""
    formats: Sequence[str] = ('parquet',)
    """'parquet', 'coco' or both; parts are always parquet."""
    size: Size = field(default_factory=Size)
    address: str | None = None
    """Of a cluster of Ray, or 'auto'; None: this machine alone."""
    resume: bool = False
    """Whether a job that was stopped is gone on with; of one that is finished, images are tried again that could not be
    read."""
    on_error: str = 'skip'
    """What an image does that cannot be read: 'skip' leaves a row with the error, 'stop' ends the job."""
    part_rows: int = ROWS
    """Rows after which a part is written."""
    part_seconds: float = SECONDS
    """Seconds after which it is written, however few they are."""

    def settings(self, opener: Opener) -> dict[str, Any]:
        """What the rows depend on, for ``job.json``; a job is resumed with the same ones alone."""
        images = self.images if '://' in self.images else os.path.abspath(self.images)
        root = self.root if self.root is None or '://' in self.root else os.path.abspath(self.root)
        shard = None if self.shard is None else str(self.shard)
        return dict(**opener.settings, images=images, root=root, shard=shard)


def predict(request: Request, opener: Opener) -> int:
    """Do a job, go on with it, or say that it is done.

    Returns:
        The exit status: 0, or 2 where images could not be read.

    Raises:
        InputError: before anything is done, for what is wrong; at the first image that cannot be read where
            ``on_error`` is 'stop'.
        WriteError: the disk is full or faulty.
        WorkersError: workers cannot go on.
        KeyboardInterrupt, Terminated: with what is done; it is written.
    """
    source, job = Source(request.images, request.root), Job(request.out)
    settings = request.settings(opener)
    job.check(settings, request.resume)
    category_ids = source.category_ids(opener.names) if 'coco' in request.formats else None
    _check_images(request, job, source)
    with job.claimed():
        job.check(settings, request.resume)
        if job.state != FINISHED or (request.resume and job.record['errors']):
            with _started(request, job, settings, source, opener) as size:
                _detect(request, job, opener, source.root, size)
        else:
            print(f'{job.folder} was finished before; nothing to detect')
        _write_formats(request, job, source, opener.names, category_ids)
    return _summary(job)


def dry_run(request: Request, opener: Opener) -> None:
    """Say how many images there are and what they would take; nothing is written.

    Raises:
        InputError: see :func:`predict`.
    """
    source, job, size = Source(request.images, request.root), Job(request.out), request.size
    job.check(request.settings(opener), request.resume)
    _check_images(request, job, source)
    with tempfile.TemporaryDirectory() as folder:  # ids are compared as the job itself does it
        count = len(write_manifest(_images(request, source), Path(folder)))
        unread = _unread(opener, source.root, Path(folder), count)
    done = count_rows(job.parts)
    memory = _memory_mb(opener, size.batch_size)
    workers = size.workers or engine.fitting(request.address, size)
    devices = 'a GPU' if size.gpus else f'{size.threads} CPU' + 's' * (size.threads > 1)
    print(f'images: {count}' + (f', of which {done} are done' if done else ''))
    if unread:
        print(f'unreadable: {len(unread)} of {min(count, LOOKED_AT)} looked at, such as: {unread[0]}')
    print(f'workers: {workers} of {devices} each, {size.batch_size} images a batch')
    print(f'memory: about {memory:.0f} MB a worker, {workers * memory / 1000:.1f} GB in all, and 1 GB for Ray')
    print(f'parts: at least {-(-(count - done) // request.part_rows)}, in {job.parts}')


@contextlib.contextmanager
def _started(request: Request, job: Job, settings: dict[str, Any], source: Source, opener: Opener) -> Iterator[Size]:
    """The images are listed, and workers to hand: how many. Where it fails or is stopped, the folder is as it was."""
    is_new, is_finished = job.state in (None, LISTING), job.state == FINISHED
    with contextlib.ExitStack() as stack:
        try:
            if request.address:
                size = stack.enter_context(engine.session(request.address, request.size, job.folder))
            if is_new:
                job.start(settings, names=[*opener.names])
                job.update(images=len(write_manifest(_images(request, source), job.manifest)))
            if not request.address:
                size = stack.enter_context(engine.session(None, request.size, job.folder))
        except BaseException:
            if is_new:
                job.drop()
            raise
        job.update(state=RUNNING)
        if is_finished:
            for path in _format_files(job):
                path.unlink(missing_ok=True)
            remove_errors(job.parts)
        yield size


def _detect(request: Request, job: Job, opener: Opener, root: Root, size: Size) -> None:
    """Do what is missing, and see that nothing is."""
    remaining, errors = Remaining(manifest_ids(job.manifest)), 0
    for table in part_tables(job.parts, ['id', 'error']):
        remaining.finish(table['id'].to_numpy())
        errors += len(table) - table['error'].null_count
    writer = PartsWriter(job.parts, opener.names, request.part_rows, request.part_seconds)
    total = job.record['images']
    done = total - remaining.count
    bar = tqdm(total=total, initial=done, smoothing=0.05, mininterval=0.5, unit=' images', bar_format=_BAR)
    todo = remaining.of(manifest_tables(job.manifest))
    # closed at an error, too, as Ray's threads end the process, without a word, where they go on after its shutdown
    with bar, contextlib.closing(engine.detect(todo, opener, root, size)) as tables:
        bar.set_postfix(errors=errors)
        try:
            for table in tables:
                fresh = table.filter(pa.array(remaining.finish(table['id'].to_numpy())))
                writer.add(fresh)
                failed = fresh['error'].drop_null().to_pylist()
                if failed and request.on_error == 'stop':
                    raise InputError(f'{failed[0]}; --resume does the others, and tries no image twice')
                for error in failed[: max(0, SHOWN - errors)]:
                    bar.write(f'error: {error}', file=sys.stderr)
                errors += len(failed)
                bar.set_postfix(errors=errors, refresh=False)
                bar.update(len(fresh))
            writer.flush()
        except BaseException as stop:
            writer.flush()
            job.update(state=STOPPED)
            if not isinstance(stop, (KeyboardInterrupt, Terminated)):
                raise
            done = count_rows(job.parts)
            raise type(stop)(f'{done} of {total} images are done, and --resume does the others') from None
    _check_whole(job, total)
    job.update(state=FINISHED, errors=errors)


def _check_whole(job: Job, total: int) -> None:
    """Rows on disk are the images, each once."""
    ids = np.concatenate([np.zeros(0, np.int64), *(table['id'].to_numpy() for table in part_tables(job.parts, ['id']))])
    unique = len(np.unique(ids))
    if not len(ids) == unique == total:
        raise WorkersError(
            f'{job.parts} has {len(ids)} rows, of {unique} images, for {total} images; --resume does what is missing'
        )


def _write_formats(
    request: Request, job: Job, source: Source, names: Sequence[str], category_ids: Sequence[int] | None
) -> None:
    coco, results = _format_files(job)
    if 'coco' not in request.formats or (coco.exists() and results.exists()):
        return
    image_ids = 'own' if source.has_ids() else 'numbered'
    options: dict[str, Any] = dict(names=names, category_ids=category_ids, image_ids=image_ids)
    write_coco(part_tables(job.parts), coco, root=source.root.uri, **options)
    write_results(part_tables(job.parts), results, **options)


def _summary(job: Job) -> int:
    errors = job.record['errors']
    written = [path for path in _format_files(job) if path.exists()]
    number, again = job.record['images'], '; --resume tries again' if errors else ''
    print(f'{number} image{"s" if number != 1 else ""}, of which {errors} could not be read{again}')
    print(f'rows: {job.parts}' + ''.join(f'   {path.stem}: {path}' for path in written))
    return 2 if errors else 0


def _format_files(job: Job) -> tuple[Path, Path]:
    return job.folder / 'coco.json', job.folder / 'results.json'


def _images(request: Request, source: Source) -> Iterable[Image]:
    """Those that are meant; files of the job itself are none, whatever a pattern says."""
    images: Iterable[Image] = source
    if source.kind == 'pattern':
        own = f'{os.path.abspath(request.out)}/'
        images = (image for image in source if not image.path.startswith(own))
    return images if request.shard is None else request.shard.of(images)


def _check_images(request: Request, job: Job, source: Source) -> None:
    """Whether a job's images are those that it began with, and some are there where it is not finished.

    A folder or pattern in a store is not listed anew, as that takes a request per 1,000 files.
    """
    is_far = source.kind in ('folder', 'pattern') and source.root.filesystem.type_name != 'local'
    if job.state not in (None, LISTING) and job.manifest.is_dir() and not is_far:
        differing = difference(_images(request, source), job.manifest)
        if differing:
            raise InputError(
                f'{job.folder} holds a job of other images: {differing}; name another folder with --out, or remove '
                'this one to begin anew'
            )
    if job.state != FINISHED:
        _check_some(request, source)


def _check_some(request: Request, source: Source) -> None:
    """Whether there are images, and workers; and one of the first images, where workers are on this machine."""
    first = [*islice(_images(request, source), LOOKED_AT)]
    if not first and request.shard:
        raise InputError(f'--shard {request.shard} of {source.images} has no images; take fewer shards')
    if request.address:
        engine.check_address(request.address)
    elif source.kind in ('manifest', 'annotations'):
        local = [image.path for image in first if '://' not in image.path]
        if local and not any(map(os.path.exists, local)):
            raise InputError(
                f'{source.images} names images that are not there, such as {local[0]}; say with --root in which folder '
                'its paths begin'
            )


def _unread(opener: Opener, root: Root, manifest: Path, count: int) -> list[str]:
    """Errors of :data:`LOOKED_AT` of ``count`` images, spread evenly."""
    chosen = np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int))
    errors, first = [], 0
    for table in manifest_tables(manifest):
        inside = chosen[(chosen >= first) & (chosen < first + len(table))] - first
        first += len(table)
        for path in table['path'].take(pa.array(inside)).to_pylist():
            try:
                opener.prepare(read_bytes(*root.located(path)), path)
            except InputError as error:
                errors.append(str(error))
    return errors


def _memory_mb(opener: Opener, batch_size: int) -> float:
    """What a process takes that has the detector open and has run it, in 1e6 bytes, measured in this one."""
    import resource

    blank = BytesIO()
    PILImage.new('RGB', (640, 480)).save(blank, 'PNG')
    opener.open()([opener.prepare(blank.getvalue(), 'a blank image')] * batch_size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / 1e6

"""Reads the annotations and images of every set that a config names: the data doctor's eyes.

What it makes of them is in ``data_findings``, how that is printed in ``inspection_report``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ...config_options import type_name
from ...datasets.coco.checks import ConfigSet, ReadSets
from ...datasets.coco.report import CheckedSet
from ...datasets.coco.small_boxes import Resizing
from ...errors import InputError
from ...registry import SCOPE
from .image_probe import ImageFacts, probe

_CHUNK = 16  # images that a process is handed at a time


@dataclass(frozen=True)
class InspectedSet:
    """One set, and what was seen of its images.

    Attributes:
        name: 'train', 'val' or 'test', numbered where a split has several.
        config: what the config says of it.
        checked: its annotations.
        on_error: what its pipeline does with an unusable image: 'skip', 'raise', or 'unchecked'.
        resizing: its pipeline's last ``Resize``; None: there is none of a fixed size.
        rows: the images looked at, as places in ``checked.file_names``.
        images: one entry for each of ``rows``.
    """

    name: str
    config: ConfigSet
    checked: CheckedSet
    on_error: str
    resizing: Resizing | None
    rows: tuple[int, ...]
    images: tuple[ImageFacts, ...]

    @property
    def trains(self) -> bool:
        return self.config.split == 'train'

    def files(self) -> list[str]:
        """File names of the images looked at."""
        return [self.checked.file_names[row] for row in self.rows]


def inspect(read: ReadSets, *, workers: int, limit: int | None = None, progress: bool = True) -> list[InspectedSet]:
    """Read all images.

    Args:
        read: the annotations.
        workers: processes that decode images; 0: this one.
        limit: look at no more images of a set than these, evenly spread; None: all.
        progress: whether to draw a bar on the standard error, where that is a terminal.

    Raises:
        InputError: there is no set to look at; a process that decodes images died.
    """
    if not read.sets:
        warnings = '; '.join(warning for unknown in read.unchecked for warning in unknown.warnings)
        others = f' ({warnings})' if warnings else ''
        raise InputError(
            f'the config names no CocoDataset on this machine, so there is nothing to look at{others}; correct '
            'ann_file and data_root, or name another config'
        )
    names = _names([config.split for config, _ in read.sets])
    return [_inspected(name, *pair, workers, limit, progress) for name, pair in zip(names, read.sets)]


def _names(splits: Sequence[str]) -> list[str]:
    counts: Counter[str] = Counter()
    names = []
    for split in splits:
        counts[split] += 1
        names.append(split if counts[split] == 1 else f'{split} {counts[split]}')
    return names


def _inspected(
    name: str, config: ConfigSet, checked: CheckedSet, workers: int, limit: int | None, progress: bool
) -> InspectedSet:
    count = len(checked.file_names)
    rows = tuple(np.unique(np.linspace(0, count - 1, min(count, limit or count)).round().astype(int)).tolist())
    images: tuple[ImageFacts, ...] = ()
    if checked.image_dir is None:
        rows = ()
    else:
        paths = [str(checked.image_dir / checked.file_names[row]) for row in rows]
        sizes = [(float(w), float(h)) for w, h in checked.arrays.image_sizes[list(rows)]]
        images = tuple(_with_bar(_probed(paths, sizes, workers), len(rows), name, progress))
    return InspectedSet(name, config, checked, on_error(config.pipeline), resizing(config.pipeline), rows, images)


def _probed(paths: list[str], sizes: list[tuple[float, float]], workers: int) -> Iterator[ImageFacts]:
    if workers < 1:
        yield from map(probe, paths, sizes)
        return
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # here: in a forked process it waits for ever for threads that were left behind
    try:
        with ProcessPoolExecutor(workers) as pool:
            yield from pool.map(probe, paths, sizes, chunksize=_CHUNK)
    except BrokenProcessPool as error:
        raise InputError(
            'a process that decodes images died: the memory was full, or a decoder crashed; try --workers 1, which '
            "needs less memory, or --workers 0, which shows the decoder's own message"
        ) from error
    finally:
        cv2.setNumThreads(threads)


def _with_bar(facts: Iterator[ImageFacts], total: int, name: str, progress: bool) -> Iterable[ImageFacts]:
    if not progress:
        return facts
    try:
        from tqdm import tqdm
    except ImportError:
        return facts
    return tqdm(facts, desc=name, total=total, unit='image', disable=None)


def on_error(pipeline: Sequence[Mapping[str, Any]]) -> str:
    """What a pipeline does with an unusable image: 'skip', 'raise' or, where nothing checks, 'unchecked'."""
    for step in pipeline:
        if is_checked_loader(step):
            return str(step.get('on_error', 'raise'))
        if type_name(step) == 'CheckImage':
            return 'raise'
    return 'unchecked'


def is_checked_loader(step: Mapping[str, Any]) -> bool:
    """Whether a step of a pipeline is this package's loader, under either of its names."""
    in_scope = step.get('_scope_') == SCOPE or str(step.get('type')).startswith(f'{SCOPE}.')
    return type_name(step) == 'LoadCheckedImage' or (type_name(step) == 'LoadImageFromFile' and in_scope)


def resizing(pipeline: Sequence[Mapping[str, Any]]) -> Resizing | None:
    """The last ``Resize`` of a pipeline, where its size is fixed."""
    return next(filter(None, map(Resizing.of, reversed(pipeline))), None)

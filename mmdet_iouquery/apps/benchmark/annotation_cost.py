"""What reading large annotation files costs: seconds and memory, measured on made-up files and extrapolated.

Every figure comes from a process of its own, as memory that was used once is seldom given back. Linux only: the kernel
tells the memory, in three lines of ``/proc/self`` for which psutil would be one more requirement.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError

STAGES = {
    'check': 'the check before training',
    'plain': 'CocoDataset, data list as Python objects',
    'serialised': 'CocoDataset, data list serialised',
}
OBJECTS365_CLASSES, OBJECTS365_BOXES, OBJECTS365_IMAGES = 365, 15.0, 1_700_000


@dataclass(frozen=True)
class ReadingCost:
    """What one stage took. Memory is in MB (10^6 bytes), without that of Python and the imported packages.

    Attributes:
        seconds: wall time.
        peak: the most memory while reading.
        held: what is left afterwards.
        worker: what a data worker, forked then, has of its own after it has taken every sample once; 0 for the check.
    """

    seconds: float
    peak: float
    held: float
    worker: float = 0.0


def write_synthetic(
    path: Path,
    num_images: int,
    *,
    num_classes: int = OBJECTS365_CLASSES,
    boxes_per_image: float = OBJECTS365_BOXES,
    seed: int = 0,
) -> int:
    """Write a COCO-style JSON without images, and return the number of its annotations.

    Args:
        path: the file.
        num_images: images, each 1024 x 768 px.
        num_classes: classes, drawn evenly.
        boxes_per_image: their mean number; each image's is drawn from a Poisson distribution.
        seed: of every random choice.
    """
    random = np.random.default_rng(seed)
    counts = random.poisson(boxes_per_image, num_images)
    total = int(counts.sum())
    top_left, sides = random.uniform(0, [700, 500], (total, 2)), random.uniform(8, 256, (total, 2))
    labels = random.integers(1, num_classes + 1, total)
    images = (
        {'id': i, 'file_name': f'patch{i % 51}/objects365_v2_{i:08d}.jpg', 'width': 1024, 'height': 768}
        for i in range(1, num_images + 1)
    )
    annotations = (
        {'id': k + 1, 'image_id': int(image), 'category_id': int(label), 'bbox': [*xy, *wh], 'area': wh[0] * wh[1]}
        | {'iscrowd': 0}
        for k, (image, label, xy, wh) in enumerate(
            zip(
                np.repeat(np.arange(1, num_images + 1), counts),
                labels,
                top_left.round(2).tolist(),
                sides.round(2).tolist(),
            )
        )
    )
    with open(path, 'w', encoding='utf-8') as file:
        file.write('{"categories": ' + json.dumps([{'id': i, 'name': name} for i, name in _categories(num_classes)]))
        for key, records in (('images', images), ('annotations', annotations)):
            file.write(f', "{key}": [' + ', '.join(map(json.dumps, records)) + ']')
        file.write('}')
    return total


def measure(path: Path, stage: str, num_classes: int = OBJECTS365_CLASSES) -> ReadingCost:
    """Read a file in a fresh process.

    Args:
        path: the JSON of :func:`write_synthetic`.
        stage: one of :data:`STAGES`.
        num_classes: its classes.

    Raises:
        InputError: this is not Linux.
    """
    if not Path('/proc/self/smaps_rollup').is_file():
        raise InputError('memory is measured through /proc/self, which only Linux has; run this on Linux')
    command = [sys.executable, '-m', __name__, stage, str(path), str(num_classes)]
    done = subprocess.run(command, capture_output=True, encoding='utf-8', check=False)
    if done.returncode:
        raise RuntimeError(f'reading {path} ({stage}) failed:\n{done.stderr[-2000:]}')
    return ReadingCost(**json.loads(done.stdout.splitlines()[-1]))


def per_million(images: Sequence[int], costs: Sequence[ReadingCost]) -> ReadingCost:
    """The slope of a straight line through each figure, per million images, in seconds and MB."""
    millions = np.asarray(images) / 1e6
    slopes = {key: np.polyfit(millions, [asdict(cost)[key] for cost in costs], 1)[0] for key in asdict(costs[0])}
    return ReadingCost(**{key: float(slope) for key, slope in slopes.items()})


def _categories(num_classes: int) -> list[tuple[int, str]]:
    return [(i, f'class {i}') for i in range(1, num_classes + 1)]


def _memory(key: str, file: str = 'status') -> float:
    """A figure of this process, in MB, from the kernel's kB."""
    lines = Path(f'/proc/self/{file}').read_text(encoding='ascii').splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f'{key}:')) * 1.024e-3


def _read(stage: str, path: str, num_classes: int) -> ReadingCost:
    from mmdet.datasets import CocoDataset

    from ...datasets.coco.checks import check_coco

    classes = tuple(name for _, name in _categories(num_classes))
    before, started = _memory('VmRSS'), time.perf_counter()
    if stage == 'check':
        kept: Any = check_coco(path, None, classes)
    else:
        kept = CocoDataset(
            ann_file=path,
            metainfo={'classes': classes},
            data_prefix={'img': ''},
            pipeline=[],
            serialize_data=stage == 'serialised',
        )
    seconds = time.perf_counter() - started
    peak, held = _memory('VmHWM') - before, _memory('VmRSS') - before
    return ReadingCost(seconds, peak, held, 0.0 if stage == 'check' else _worker_memory(kept))


def _worker_memory(dataset: Any) -> float:
    """What a forked process has of its own, more than at its beginning, after it has taken every sample once."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        before = _memory('Private_Dirty', 'smaps_rollup')
        for index in range(len(dataset)):
            dataset.get_data_info(index)
        sender.send(_memory('Private_Dirty', 'smaps_rollup') - before)

    process = context.Process(target=work)
    process.start()
    grown = float(receiver.recv())
    process.join()
    return grown


if __name__ == '__main__':
    print(json.dumps(asdict(_read(sys.argv[1], sys.argv[2], int(sys.argv[3])))))

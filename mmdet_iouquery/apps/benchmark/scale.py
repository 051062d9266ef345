"""Batch prediction on Ray Data, beside a plain loop over the runtime."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from iouquery_runtime import Detector

from ...deploy.export import ExportSettings, export_onnx
from ...errors import InputError
from .models import detector

DETECTIONS = 20
"""Of an image, about: what a model's random weights score above the threshold."""
_DISTINCT = 100  # images; all others are links to them
_SECONDS_BETWEEN_LOOKS = 0.1

_LOOP = """
import sys, time
from pathlib import Path
from iouquery_runtime import Detector
model, folder, batch, score_thr = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
detector, paths = Detector(model, threads=1), sorted(map(str, folder.iterdir()))
detector(paths[:batch], score_thr)
start = time.perf_counter()
for first in range(0, len(paths), batch):
    detector(paths[first : first + batch], score_thr)
print(time.perf_counter() - start)
"""
"""Nothing is written; what it takes to start and to open the model is left out."""


class _Run(NamedTuple):
    seconds: float
    memory_mb: float


def scale(
    *, model_names: Sequence[str], side: int, batch: int, counts: Sequence[int], workers: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Images/s of the command as it is called, and between the fewest images and more, where starting drops out.

    Images are JPEG files of 2 by 1.5 sides; weights are random. Each worker, and the loop, has one thread.

    Args:
        batch: images at once.
        counts: images of the jobs.
        workers: numbers of them.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        folders = {count: _links(base, count, side) for count in sorted(counts)}
        for model_name in model_names:
            model = base / f'{model_name}.onnx'
            export_onnx(detector(model_name).eval(), model, ExportSettings(size=(side, side), verify=False))
            score_thr = _threshold(model, folders[min(counts)])
            loop = _loop_rates(model, folders[min(counts)], batch, score_thr, rounds)
            about = dict(model=model_name, side_px=side, batch=batch)
            rows.append(dict(**about, side='plain loop', images=min(counts), images_per_s=loop))
            runs = _in_turn(model, folders, workers, batch, score_thr, rounds, base)
            rows += [{**about, **row} for row in _rows(runs, loop)]
    return rows


def _rows(runs: dict[tuple[int, int], _Run], loop: float) -> list[dict[str, Any]]:
    """Figures of ``runs``, by workers and images, beside the images/s of the plain loop."""
    fewest = min(images for _, images in runs)
    steady = {
        (workers, images): (images - fewest) / (run.seconds - runs[workers, fewest].seconds)
        for (workers, images), run in runs.items()
        if images > fewest
    }
    rows = []
    for (workers, images), run in runs.items():
        row: dict[str, Any] = dict(side=f'{workers} worker' + 's' * (workers > 1), images=images)
        row.update(seconds=run.seconds, images_per_s=images / run.seconds, driver_mb=run.memory_mb)
        rate, one_worker = steady.get((workers, images)), steady.get((1, images))
        if rate is not None:
            row.update(steady_images_per_s=rate, of_loop=rate / (loop * workers))
        if rate is not None and one_worker is not None:
            row.update(efficiency=rate / (one_worker * workers))
        rows.append(row)
    return rows


def _in_turn(
    model: Path,
    folders: dict[int, Path],
    workers: Sequence[int],
    batch: int,
    score_thr: float,
    rounds: int,
    base: Path,
) -> dict[tuple[int, int], _Run]:
    """Medians by workers and images."""
    every: dict[tuple[int, int], list[_Run]] = {(number, count): [] for number in sorted(workers) for count in folders}
    for turn in range(rounds):
        for (number, count), runs in every.items():
            out = base / f'{model.stem}-{number}-{count}-{turn}'
            runs.append(_job(model, folders[count], out, number, batch, score_thr))
    return {
        key: _Run(statistics.median(run.seconds for run in runs), max(run.memory_mb for run in runs))
        for key, runs in every.items()
    }


def _job(model: Path, images: Path, out: Path, workers: int, batch: int, score_thr: float) -> _Run:
    command = [sys.executable, '-m', 'iouquery_runtime.jobs', str(model), '--images', str(images), '-o', str(out)]
    command += ['--workers', str(workers), '--batch-size', str(batch), '--score-thr', str(score_thr)]
    start, memory_mb = time.perf_counter(), 0.0
    with tempfile.TemporaryFile('w+', encoding='utf-8') as output:
        with subprocess.Popen(command, stdout=output, stderr=output) as process:
            while process.poll() is None:
                memory_mb = max(memory_mb, _peak_mb(process.pid))
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        seconds = time.perf_counter() - start
        output.seek(0)
        if process.returncode:
            raise InputError(f'{" ".join(command)} ended with status {process.returncode}: {output.read()[-2000:]}')
    state = json.loads((out / 'job.json').read_text(encoding='utf-8'))
    assert state['images'] == len(os.listdir(images)) and not state['errors'], state
    return _Run(seconds, memory_mb)


def _loop_rates(model: Path, images: Path, batch: int, score_thr: float, rounds: int) -> float:
    """Images/s, the median."""
    command = [sys.executable, '-c', _LOOP, str(model), str(images), str(batch), str(score_thr)]
    seconds = [
        float(subprocess.run(command, capture_output=True, encoding='utf-8', check=True).stdout) for _ in range(rounds)
    ]
    return len(os.listdir(images)) / statistics.median(seconds)


def _links(base: Path, count: int, side: int) -> Path:
    """A folder of so many JPEG files, of which every hundredth has the same content."""
    contents, folder = base / 'contents', base / str(count)
    if not contents.exists():
        contents.mkdir()
        draw = np.random.default_rng(0)
        for i in range(_DISTINCT):
            small = draw.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(small).resize((2 * side, 3 * side // 2)).save(contents / f'{i}.jpg', quality=90)
    folder.mkdir()
    for i in range(count):
        os.link(contents / f'{i % _DISTINCT}.jpg', folder / f'{i:09d}.jpg')
    return folder


def _threshold(model: Path, images: Path) -> float:
    """Above which :data:`DETECTIONS` of an image score."""
    first = sorted(images.iterdir())[0]
    return round(float(np.sort(Detector(model, threads=1)(str(first), 0.0).scores)[-DETECTIONS]), 6)


def _peak_mb(pid: int) -> float:
    """Most memory of a process that lay in RAM so far, in MB of 10**6 bytes; 0 where the system does not tell."""
    try:
        status = Path(f'/proc/{pid}/status').read_text(encoding='ascii')
    except OSError:
        return 0.0
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith('VmHWM')]
    return 1024 * int(peaks[0]) / 1e6 if peaks else 0.0

"""Exported files in onnxruntime and OpenVINO, beside the detector in torch and the authors' own export."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...deploy import prepare_for_inference
from ...deploy.export import ExportSettings, export_onnx
from ...deploy.model_files import files_of
from ...deploy.quantize import write_quantized
from ..timing import rows_of, time_in_turn
from .models import Batch, detector
from .reference import NAME, Reference
from .sessions import Feed, session

RUNTIMES = {'onnxruntime': None, 'OpenVINO': 'f32', 'OpenVINO bfloat16': 'bf16'}
"""And the precision that OpenVINO is told to compute in."""
QUANTISED_ON = 8  # images of noise: time depends on no range

_OPEN = """
import json, runpy, sys, time
import numpy
sessions = runpy.run_path(sys.argv[1])
file, precision, threads, feed = json.loads(sys.argv[2])
feed = dict(numpy.load(feed))
before, start = sessions['resident_mb'](), time.perf_counter()
call = sessions['session'](file, precision, threads)
seconds = time.perf_counter() - start
call(feed)
print(json.dumps([seconds, sessions['resident_mb']() - before]))
"""
"""Opens a file in a process without torch, and says how long that took and how much memory the first call needed."""


def deployed(
    reference: Reference | None, *, model_names: Sequence[str], batches: Sequence[int], side: int, rounds: int
) -> list[dict[str, Any]]:
    """Time a call from pixels 0..255 to detections; ratios are over the authors' export in the same runtime.

    Random weights: time depends on none.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model_name in model_names:
            ours = detector(model_name).eval()
            files = _files(model_name, ours, side, reference, Path(folder))
            for batch in batches:
                images = Batch(batch, side, 0, torch.device('cpu')).images
                rows += _measured(model_name, ours, files, images, rounds)
    return rows


def _files(
    model_name: str, ours: nn.Module, side: int, reference: Reference | None, folder: Path
) -> dict[tuple[str, str], Path]:
    """By whose they are and the precision of their weights."""
    files = {('ours', 'float32'): folder / f'{model_name}.onnx', ('ours', 'int8'): folder / f'{model_name}-int8.xml'}
    settings = ExportSettings(size=(side, side), verify=False)
    export_onnx(ours, files['ours', 'float32'], settings)
    noise = [_feed(Batch(1, side, 0, torch.device('cpu')).images) for _ in range(QUANTISED_ON)]
    write_quantized(files['ours', 'float32'], files['ours', 'int8'], noise, {})
    if reference is not None:
        files[NAME, 'float32'] = folder / f'{model_name}-reference.onnx'
        reference.export(model_name, side, files[NAME, 'float32'])
    return files


def _measured(
    model_name: str, ours: nn.Module, files: Mapping[tuple[str, str], Path], images: torch.Tensor, rounds: int
) -> list[dict[str, Any]]:
    threads, batch, side = torch.get_num_threads(), images.shape[0], images.shape[-1]
    sides: dict[str, Callable[[], object]] = {
        'torch, as built': _in_torch(ours, images),
        'torch, prepared': _in_torch(prepare_for_inference(ours), images),
    }
    about: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for (whose, weights), file in files.items():
            feed = _feed(images) if whose == 'ours' else Reference.feed(images)
            np.savez(Path(folder) / 'feed.npz', **feed)
            for runtime, precision in RUNTIMES.items():
                if weights == 'int8' and precision != 'f32':
                    continue
                name = f'{whose}, {"OpenVINO int8" if weights == "int8" else runtime}'
                sides[name] = _call(str(file), precision, threads, feed)
                about[name] = _opened(file, precision, threads, Path(folder) / 'feed.npz')
        timings = time_in_turn(sides, rounds)
    rows = rows_of(timings, None, model=model_name, batch=batch, side_px=side, threads=threads)
    medians = {row['side']: row['median_s'] for row in rows}
    for row in rows:
        theirs = medians.get(row['side'].replace('ours', NAME)) if row['side'].startswith('ours') else None
        row['ratio'] = None if theirs is None else row['median_s'] / theirs
        row.update(about.get(row['side'], {}))
    return rows


def _in_torch(model: Any, images: torch.Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return model.bbox_head.forward(model.extract_feat(images))

    return call


def _call(file: str, precision: str | None, threads: int, feed: Feed) -> Callable[[], object]:
    opened = session(file, precision, threads)
    return lambda: opened(feed)


def _opened(file: Path, precision: str | None, threads: int, feed: Path) -> dict[str, Any]:
    """File size, and what opening takes in a process of its own."""
    arguments = json.dumps([str(file), precision, threads, str(feed)])
    command = [sys.executable, '-c', _OPEN, str(Path(__file__).with_name('sessions.py')), arguments]
    done = subprocess.run(command, capture_output=True, encoding='utf-8', check=True)
    seconds, memory_mb = json.loads(done.stdout.splitlines()[-1])
    file_mb = sum(path.stat().st_size for path in files_of(file)) / 1e6
    return {'file_mb': file_mb, 'open_s': seconds, 'memory_mb': memory_mb}


def _feed(images: torch.Tensor) -> dict[str, NDArray[Any]]:
    """Ours: pixels 0..255, and sizes of the originals."""
    sizes = [[images.shape[3], images.shape[2]]] * images.shape[0]
    return {'images': (images * 255).round().numpy(), 'sizes': np.asarray(sizes, np.float32)}

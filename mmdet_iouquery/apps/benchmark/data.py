"""The training pipeline from JPEG files to packed samples: ours, and mmdet's own transforms doing the same.

Shape shorthand: H and W an image's height and width in px.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable

import cv2
import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import init_default_scope
from numpy.typing import NDArray

from ...config_files import config_path
from ...datasets.seeded_batches import SeededBatch
from .evaluation import HEIGHT, WIDTH, simulate

CONFIG = 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'
_GRIDS = (3, 6, 12, 24, 48, 96, 192)
"""Rows of the random grids whose sum is an image; each coarser one is about twice as strong, as in photographs."""
_SHAPES = 12
_QUALITY = 95

Pipeline = list[dict[str, Any]]


def data_case(num_images: int, seed: int = 0) -> dict[str, Callable[[], list[Any]]]:
    """Write images and annotations like COCO's, and make what is to be timed.

    Returns:
        By name, functions that send all images through a whole training pipeline at 640 x 640, one after the other on
        one core and with equal random numbers, and return the samples. 'ours' and "mmdet's transforms" do the same to
        them, up to rounding; "mmdet's transforms, OpenCV's resize" is what its configs usually have, and leaves floats
        that are not antialiased. The files go with the last of the functions.
    """
    folder = TemporaryDirectory()
    write_set(Path(folder.name), num_images, seed)
    return {name: partial(_run, _dataset(steps, folder), folder) for name, steps in pipelines().items()}


def shares(num_images: int, seed: int = 0, *, name: str = 'ours', passes: int = 3) -> dict[str, float]:
    """Each transform's part of the time of the pipeline called ``name``, by its type; together 1."""
    seconds: dict[str, float] = defaultdict(float)
    with TemporaryDirectory() as folder, one_core():
        write_set(Path(folder), num_images, seed)
        dataset = _dataset(pipelines()[name], folder)
        _load(dataset)  # files and code are at hand from here on
        for _ in range(passes):
            for index in SeededBatch(range(len(dataset)), (seed,)):
                sample = dataset.get_data_info(index)
                for transform in dataset.pipeline.transforms:
                    start = time.perf_counter()
                    sample = transform(sample)
                    seconds[type(transform).__name__] += time.perf_counter() - start
    return {kind: spent / sum(seconds.values()) for kind, spent in seconds.items()}


def pipelines() -> dict[str, Pipeline]:
    """The training pipelines compared, by name."""
    ours = Config.fromfile(config_path(CONFIG)).train_dataloader.dataset.pipeline
    (resize,) = (step for step in ours if step.type == 'AntialiasedResize')
    drop_small_boxes = next(step for step in ours if step.type == 'FilterAnnotations')
    start = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PhotoMetricDistortion'),
        dict(type='Expand', mean=[0, 0, 0], to_rgb=True, ratio_range=(1, 4), prob=0.5),
        dict(type='RandomApply', transforms=dict(type='MinIoURandomCrop'), prob=0.8),
        drop_small_boxes,
        dict(type='RandomFlip', prob=0.5),
    ]
    end = [drop_small_boxes, dict(type='PackDetInputs')]
    return {
        'ours': ours,
        "mmdet's transforms": [
            *start,
            dict(type='ToUint8'),  # Pillow refuses floats
            dict(type='Resize', scale=resize.scale, keep_ratio=False, backend='pillow'),
            *end,
        ],
        "mmdet's transforms, OpenCV's resize": [
            *start,
            dict(type='Resize', scale=resize.scale, keep_ratio=False, backend='cv2'),
            *end,
        ],
    }


def write_set(folder: Path, num_images: int, seed: int) -> None:
    """JPEG files of 640 x 480 px in ``folder`` and their boxes in ``folder/truth.json``, seven an image."""
    rng = np.random.default_rng(seed)
    truth, _ = simulate(num_images, 1, seed)
    for image in truth['images']:
        image['file_name'] = f'{image["id"]:05}.jpg'
        cv2.imwrite(str(folder / image['file_name']), synthetic_image(rng), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    (folder / 'truth.json').write_text(json.dumps(truth), encoding='utf-8')


def synthetic_image(rng: np.random.Generator) -> NDArray[Any]:
    """Colours that vary over all distances, with the edges of some shapes: (H, W, 3) uint8."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.float32)
    for rows in _GRIDS:
        grid = rng.normal(0, 110 / rows**0.8, (rows, rows * WIDTH // HEIGHT, 3)).astype(np.float32)
        image += cv2.resize(grid, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for _ in range(_SHAPES):
        x, y, width, height, turn = rng.uniform(0, 1, 5) * (WIDTH, HEIGHT, WIDTH / 5, HEIGHT / 5, 360)
        ellipse = (x, y), (width, height), turn
        cv2.ellipse(image, ellipse, rng.uniform(0, 255, 3).tolist(), thickness=-1)
    image += rng.normal(0, 7, image.shape)  # a sensor's noise
    return np.clip(image, 0, 255).astype(np.uint8)


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep OpenCV and torch from using more than one."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _dataset(steps: Pipeline, folder: TemporaryDirectory[str] | str) -> CocoDataset:
    root = folder if isinstance(folder, str) else folder.name
    init_default_scope('mmdet')
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints each step
        return CocoDataset(
            ann_file=str(Path(root, 'truth.json')),
            data_prefix=dict(img=root),
            metainfo=dict(classes=tuple(f'class {i}' for i in range(80))),
            pipeline=steps,
        )


def _run(dataset: CocoDataset, folder: TemporaryDirectory[str]) -> list[Any]:
    with one_core():
        return _load(dataset)


def _load(dataset: CocoDataset) -> list[Any]:
    return [dataset[index] for index in SeededBatch(range(len(dataset)), (0,))]

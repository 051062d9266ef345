"""COCO's evaluation of made-up detections, once for each back end.

Shape shorthand: I images, G objects of the set.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ...evaluation.faster_coco import FasterCOCOeval, obstacle

CLASSES = 80
WIDTH, HEIGHT = 640, 480
OBJECTS, EMPTY = 7.3, 0.01
"""Mean number of objects of an image that has any, and the part of the images that has none."""
CLASSES_OF_IMAGE = 3
SIDE, SIDE_SPREAD, ASPECT_SPREAD = 43.0, 1.3, 0.4
"""Median in px and logarithmic spread of the square root of an object's area: 41% small, 24% large, as in COCO."""
PROPOSAL_NUMS = (100, 300, 1000)

Numbers = NDArray[Any]


def evaluation_case(num_images: int, num_detections: int, seed: int) -> dict[str, Callable[[], Sequence[float]]]:
    """Make a set and its detections, written to files as after a test run, and what is to be timed.

    Returns:
        For each back end that can be used, a function that reads both files, evaluates, accumulates, and returns COCO's
        12 numbers with mmdet's limits of 100, 300 and 1000 detections. The files go with the last of the functions.
    """
    folder = TemporaryDirectory()
    for name, content in zip(('truth', 'found'), simulate(num_images, num_detections, seed)):
        Path(folder.name, f'{name}.json').write_text(json.dumps(content), encoding='utf-8')
    evaluators = {'pycocotools': COCOeval, **({} if obstacle() else {'faster-coco-eval': FasterCOCOeval})}
    return {name: partial(_evaluate, evaluator, folder) for name, evaluator in evaluators.items()}


def simulate(num_images: int, num_detections: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A set in COCO's form, and detections of it: jittered and repeated objects, the rest noise of low score."""
    rng = np.random.default_rng(seed)
    counts = rng.geometric(1 / OBJECTS, num_images) * (rng.random(num_images) >= EMPTY)
    owner = np.repeat(np.arange(num_images), counts)
    frequency = 1 / np.arange(1, CLASSES + 1)
    present = rng.choice(CLASSES, (num_images, CLASSES_OF_IMAGE), p=frequency / frequency.sum())
    labels = present[owner, rng.integers(CLASSES_OF_IMAGE, size=len(owner))]
    boxes = _random_boxes(rng, len(owner))
    columns = owner, labels, boxes, rng.random(len(owner)) < 0.01
    truth = dict(
        images=[dict(id=i, width=WIDTH, height=HEIGHT) for i in range(num_images)],
        categories=[dict(id=i, name=f'class {i}') for i in range(CLASSES)],
        annotations=[
            dict(id=number, image_id=i, category_id=label, bbox=box, area=box[2] * box[3], iscrowd=int(crowd))
            for number, (i, label, box, crowd) in enumerate(zip(*(column.tolist() for column in columns)), start=1)
        ],
    )
    return truth, _simulated_detections(rng, num_detections, counts, labels, boxes, present)


def _simulated_detections(
    rng: np.random.Generator, num_detections: int, counts: Numbers, labels: Numbers, boxes: Numbers, present: Numbers
) -> list[dict[str, Any]]:
    """Detections of a set; of each image first one close to each object, then a second one farther off, then noise.

    Args:
        counts: (I,) objects of each image. labels: (G,). boxes: (G, 4) x, y, w, h in px. present: (I, 3) classes.
    """
    image, rank = np.indices((len(counts), num_detections)).reshape(2, -1)
    total, many = len(image), counts[image]
    turn = rank // np.maximum(many, 1)
    good = (many > 0) & (turn < 2)
    source = ((counts.cumsum() - counts)[image] + rank % np.maximum(many, 1))[good]
    shift = rng.normal(0, np.array([0.06, 0.2])[turn[good], None], (len(source), 4))
    found_boxes = _random_boxes(rng, total)
    found_boxes[good] = boxes[source] + shift * np.tile(boxes[source, 2:], 2)
    found_boxes[:, 2:] = np.maximum(found_boxes[:, 2:], 1)
    likely = present[image, rng.integers(present.shape[1], size=total)]
    found_labels = np.where(rng.random(total) < 0.5, likely, rng.integers(CLASSES, size=total))
    right = rng.random(len(source)) < 0.9
    found_labels[good] = np.where(right, labels[source], found_labels[good])
    scores = rng.beta(1, 20, total)
    scores[good] = rng.beta(2, 2, len(source)) * np.array([1.0, 0.4])[turn[good]] * np.exp(-2 * np.abs(shift).mean(1))
    columns = image, found_labels, found_boxes.astype(np.float32), scores.astype(np.float32)
    return [
        dict(image_id=i, category_id=label, bbox=box, score=score)
        for i, label, box, score in zip(*(column.tolist() for column in columns))
    ]


def _random_boxes(rng: np.random.Generator, number: int) -> Numbers:
    """(number, 4) x, y, w, h in px, inside the image."""
    side, aspect = rng.lognormal(np.log(SIDE), SIDE_SPREAD, number), rng.lognormal(0, ASPECT_SPREAD, number)
    size = np.clip(np.stack([side * aspect, side / aspect], 1), 2, (WIDTH, HEIGHT))
    return np.concatenate([rng.random((number, 2)) * ((WIDTH, HEIGHT) - size), size], 1)


def _evaluate(evaluator: type[COCOeval], folder: TemporaryDirectory[str]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints each step
        truth = COCO(str(Path(folder.name, 'truth.json')))
        evaluation = evaluator(truth, truth.loadRes(str(Path(folder.name, 'found.json'))), 'bbox')
        evaluation.params.maxDets = list(PROPOSAL_NUMS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(number) for number in evaluation.stats]

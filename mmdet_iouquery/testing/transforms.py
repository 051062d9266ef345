"""Laws of a transform of images and their boxes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from numpy.typing import NDArray
from torch import Tensor

from ..datasets.multi_image import FURTHER_IMAGES, FurtherImages
from .laws import Outputs, Subject, seeded

CASES = ((48, 64, 3), (64, 40, 1), (50, 50, 0), (120, 90, 40), (7, 5, 2))
"""Height and width of images in px, and how many boxes they have."""
CROWD = 10
CLASSES, DRAWS = 7, 5
ROUNDING = 1e-3
"""px."""
LEAST_CONTRAST = 0.2
"""Of an image's range, over all draws together; without a transform it is about 0.7."""


@seeded()
def check_transform(part: Any) -> None:
    """Hold a transform, which comes after loading and before packing, to what the rest of a pipeline asks of it.

    Of images of bytes with no box, one and many, small and large: the image stays (H, W, 3) and ``img_shape`` is its
    size; boxes stay within it, go with what they show, and are as many as their labels and flags; no label is new;
    equal seeds give equal results; it can be sent to a data worker. It may drop an image by giving None, but not all.

    Args:
        part: the config, or a built transform.

    Raises:
        LawError: a law is broken.
        InputError: the config is wrong.
    """
    subject = Subject(part, TRANSFORMS)
    results: list[dict[str, Any]] = []
    law = 'it can be sent to a data worker'
    with subject.running(law):
        sent = pickle.loads(pickle.dumps(subject.part))
    for draw, case in enumerate(CASES * DRAWS):
        sample = _sample(*case)
        first, again, sent_result = (
            _run(subject, transform, sample, draw) for transform in (subject.part, subject.part, sent)
        )
        subject.equal('equal seeds give equal results', _tensors(again), _tensors(first))
        subject.equal(law, _tensors(sent_result), _tensors(first))
        if first is not None:
            _check_results(subject, first)
            results.append(first)
    subject.hold(results, 'some images are left', 'None for each')
    sparse = [result for result in results if len(result['gt_bboxes']) < CROWD] or results
    inside, outside = (np.concatenate(values).mean() for values in zip(*map(_brightness, sparse)))
    law = 'boxes go with what they show, here bright objects on dark ground'
    subject.hold(abs(inside - outside) > LEAST_CONTRAST, law, f'{inside:.2f} within boxes and {outside:.2f} beyond')


def _sample(height: int, width: int, number: int, *, further: bool = True) -> dict[str, Any]:
    """What a pipeline has after loading: an image of dark noise with bright objects, and their boxes."""
    low = torch.rand(number, 2) * 0.8
    boxes_xyxy = torch.cat([low, low + 0.05 + 0.15 * torch.rand(number, 2)], dim=1)
    boxes = HorizontalBoxes(boxes_xyxy * torch.tensor([width, height] * 2))
    image = np.random.randint(0, 32, (height, width, 3), dtype=np.uint8)
    image[_covered(boxes.tensor, height, width)] += 96
    sample = {
        'img': image,
        'img_path': 'images/one.jpg',
        'img_id': 1,
        'img_shape': (height, width),
        'ori_shape': (height, width),
        'gt_bboxes': boxes,
        'gt_bboxes_labels': np.arange(number) % CLASSES,
        'gt_ignore_flags': np.arange(number) % 5 == 4,
    }
    if further:  # which a mosaic asks for
        sample[FURTHER_IMAGES] = FurtherImages([_sample(*case, further=False) for case in CASES])
    return sample


def _covered(boxes: Tensor, height: int, width: int) -> NDArray[Any]:
    """(H, W) bool, the pixels that boxes (N, 4) touch."""
    covered = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], dim=1).int().tolist():
        covered[y1:y2, x1:x2] = True
    return covered


def _brightness(results: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of the pixels within boxes, and beyond, as a part of the image's range."""
    grey = results['img'].astype(np.float32).mean(2)
    grey = (grey - grey.min()) / max(grey.max() - grey.min(), 1e-6)
    covered = _covered(results['gt_bboxes'].tensor, *grey.shape)
    return grey[covered], grey[~covered]


def _run(subject: Subject, transform: Any, sample: dict[str, Any], seed: int) -> dict[str, Any] | None:
    with seeded(seed), subject.running('it takes images with no box, one and many'):
        return transform(copy.deepcopy(sample))


def _tensors(results: dict[str, Any] | None) -> Outputs:
    if results is None:
        return {}
    boxes, labels = results['gt_bboxes'].tensor, torch.as_tensor(results['gt_bboxes_labels'])
    return {'img': torch.from_numpy(results['img'].copy()), 'gt_bboxes': boxes, 'gt_bboxes_labels': labels}


def _check_results(subject: Subject, results: dict[str, Any]) -> None:
    image, boxes = results['img'], results['gt_bboxes'].tensor
    right = image.ndim == 3 and image.shape[2] == 3 and image.dtype in (np.uint8, np.float32)
    subject.hold(right, 'the image is (H, W, 3) of uint8 or float32', f'{image.shape} of {image.dtype}')
    height, width = image.shape[:2]
    size = tuple(results['img_shape'][:2])
    subject.hold(size == (height, width), f"img_shape is the image's size, {(height, width)}", size)
    subject.tensor('gt_bboxes', boxes, (boxes.shape[0], 4))
    limit = torch.tensor([width, height] * 2) + ROUNDING
    within = ((boxes >= -ROUNDING) & (boxes <= limit)).all(1)
    subject.hold(within.all(), f'boxes stay within the {width} x {height} px of the image', boxes[~within].tolist())
    inside_out = (boxes[:, 2:] < boxes[:, :2]).any(1)
    subject.hold(not inside_out.any(), 'boxes are x1, y1, x2, y2', boxes[inside_out].tolist())
    for name in ('gt_bboxes_labels', 'gt_ignore_flags'):
        subject.hold(len(results[name]) == len(boxes), f'{name} are as many as boxes, {len(boxes)}', len(results[name]))
    new = set(results['gt_bboxes_labels'].tolist()) - set(range(CLASSES))
    subject.hold(not new, f'no label is new, of {CLASSES} classes', sorted(new))

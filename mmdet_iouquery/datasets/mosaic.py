"""DEIM's mosaic: four images in quarters, turned, shifted and scaled as one.

Shape shorthand: H and W the mosaic's height and width in px, N boxes. Boxes are x1, y1, x2, y2 in px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from numpy import random
from numpy.typing import NDArray

from ..argument_checks import check_counts, check_numbers, check_range
from ..errors import InputError
from .multi_image import FURTHER_IMAGES
from .transforms import antialiased, check_bytes

_STAY_BEHIND = ('gt_masks', 'gt_seg_map', 'gt_keypoints')


@TRANSFORMS.register_module()
class QuarterMosaic(BaseTransform):
    """Four images, the own one and three drawn from the data set, side by side, then turned, shifted and scaled.

    Each is resized so that its shorter side has ``short_side`` px, and put into the left upper corner of its quarter;
    quarters are as high and wide as the highest and the widest image, and what is left is black. The whole is turned
    and scaled about its centre and shifted; the canvas stays as it is. A box becomes what encloses its four corners
    then, cut at the canvas; those of which nothing is left go, with their labels and flags. What is then too small is
    for a ``FilterAnnotations`` behind it.

    The data set has to be a ``MultiImageDataset``, and this in its pipeline. The values are those of the authors of
    DEIM (Intellindust-AI-Lab/DEIM, configs/base/deim.yml), who draw from the data set too and take the nearest pixel.

    Args:
        short_side: px.
        rotation: degrees, either way at most.
        shift: parts of the canvas' width and height, either way at most.
        scale_range: the least and the greatest factor.

    Raises:
        InputError: an argument is none of these; an image is not one of bytes, or comes with masks, which stay where
            they were; the data set hands out no further images.
    """

    def __init__(
        self,
        *,
        short_side: int = 320,
        rotation: float = 10.0,
        shift: float = 0.1,
        scale_range: Sequence[float] = (0.5, 1.5),
    ) -> None:
        check_counts(short_side=short_side)
        check_numbers(most=180, rotation=rotation)
        check_numbers(most=1, shift=shift)
        self.short_side = short_side
        self.rotation = rotation
        self.shift = shift
        self.scale_range = check_range('scale_range', scale_range, least=0.01)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """``results['img']`` (H, W, 3) uint8, ``img_shape``, ``gt_bboxes``, their labels and flags."""
        if FURTHER_IMAGES not in results:
            raise InputError(
                f'{type(self).__name__} needs further images: put it into the pipeline of '
                "train_dataloader.dataset=dict(type='MultiImageDataset', dataset=..., pipeline=...)"
            )
        samples = [results, *results[FURTHER_IMAGES].draw(3)]
        quarters = [self._quarter(sample) for sample in samples]
        canvas, boxes = _tiled(quarters)
        matrix = self._draw_matrix(*canvas.shape[:2])
        boxes, keep = _moved(boxes, matrix, *canvas.shape[:2])
        results['img'] = _warped(canvas, matrix)
        results['img_shape'] = canvas.shape[:2]
        results['gt_bboxes'] = HorizontalBoxes(torch.from_numpy(boxes[keep]))
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            if key in results:
                results[key] = np.concatenate([sample[key] for sample in samples])[keep]
        return results

    def _quarter(self, sample: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """An image, resized, and its boxes (N, 4) float32."""
        for key in _STAY_BEHIND:
            if key in sample:
                raise InputError(f'{type(self).__name__} moves boxes only, but there are {key}; leave it out')
        image = check_bytes(sample['img'], self)
        height, width = image.shape[:2]
        short, long = sorted((height, width))
        sides = self.short_side, int(self.short_side * long / short)
        new_width, new_height = sides if width <= height else sides[::-1]
        boxes = sample['gt_bboxes']
        boxes = np.asarray(getattr(boxes, 'tensor', boxes), np.float32).reshape(-1, 4)
        scale = np.array([new_width / width, new_height / height] * 2, np.float32)
        return antialiased(image, (new_width, new_height)), boxes * scale

    def _draw_matrix(self, height: int, width: int) -> NDArray[Any]:
        """(2, 3), from a point (x, y, 1) of the canvas to where it goes."""
        angle = math.radians(random.uniform(-self.rotation, self.rotation))
        shift = [round(random.uniform(-self.shift * side, self.shift * side)) for side in (width, height)]
        scale = random.uniform(*self.scale_range)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        linear, centre = np.array([[cos, -sin], [sin, cos]]), np.array([width, height]) / 2
        return np.column_stack([linear, centre + shift - linear @ centre])

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(short_side={self.short_side}, rotation={self.rotation}, shift={self.shift}, '
            f'scale_range={self.scale_range})'
        )


def _tiled(quarters: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The canvas (H, W, 3) uint8 with four images, and the boxes (N, 4) of all."""
    height, width = (max(image.shape[axis] for image, _ in quarters) for axis in (0, 1))
    canvas, moved = np.zeros((2 * height, 2 * width, 3), np.uint8), []
    for number, (image, boxes) in enumerate(quarters):
        left, top = number % 2 * width, number // 2 * height
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        moved.append(boxes + np.array([left, top, left, top], np.float32))
    return canvas, np.concatenate(moved)


def _warped(image: NDArray[Any], matrix: NDArray[Any]) -> NDArray[Any]:
    """An image (H, W, 3) moved by a matrix (2, 3), with black around it."""
    height, width = image.shape[:2]
    # OpenCV counts from the middle of the first pixel, boxes from its corner
    middle = np.array([0.5, 0.5])
    by_pixel = np.column_stack([matrix[:, :2], matrix[:, :2] @ middle + matrix[:, 2] - middle])
    return cv2.warpAffine(image, by_pixel, (width, height), flags=cv2.INTER_NEAREST)


def _moved(boxes: NDArray[Any], matrix: NDArray[Any], height: int, width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """What encloses the corners of boxes (N, 4) moved by a matrix, cut at the canvas; of which something is left."""
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] @ matrix[:, :2].T + matrix[:, 2]  # (N, 4, 2)
    limits = np.array([width, height])
    low, high = corners.min(1).clip(0, limits), corners.max(1).clip(0, limits)
    return np.concatenate([low, high], 1).astype(np.float32), (high > low).all(1)

"""Transforms that mmdet's pipelines lack."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.image import imresize, rescale_size
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import autocast_box_type
from numpy.typing import NDArray

from ..errors import InputError


@TRANSFORMS.register_module()
class CleanBoxes(BaseTransform):
    """Cut boxes at the image's border and drop those of which nothing is left, as RT-DETR's authors do on loading.

    Without it a box over the border would grow onto what an expansion puts around the image. Boxes that are turned
    inside out or hold NaN are dropped too.
    """

    @autocast_box_type()
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Clean ``gt_bboxes``, and with them labels, masks and flags, by ``img_shape``."""
        boxes = results['gt_bboxes']
        boxes.clip_(results['img_shape'])
        # no comparison with NaN is true
        keep = ((boxes.widths > 0) & (boxes.heights > 0)).numpy()
        for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_masks', 'gt_ignore_flags'):
            if key in results:
                results[key] = results[key][keep]
        return results


@TRANSFORMS.register_module()
class ToUint8(BaseTransform):
    """Round the image to whole numbers 0..255.

    Colour distortion and expansion leave floats, which an antialiased resize (``backend='pillow'``) refuses; and bytes
    are a quarter of the size on the way from the data workers.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """``results['img']`` (H, W, 3), any number type, to uint8."""
        results['img'] = np.clip(np.rint(results['img']), 0, 255).astype(np.uint8)
        return results


@TRANSFORMS.register_module()
class AntialiasedResize(Resize):
    """mmdet's ``Resize`` with ``backend='pillow'`` and bilinear interpolation, at a third to a sixth of its time.

    torch resizes bytes as Pillow does, but for the rounding in each of the two passes: values differ by 2 at most, and
    hardly ever by more than 1. It is quick on processors with AVX2; on others, Pillow does the work.

    The image that is left is a view of one laid out (3, H, W), so that ``PackDetInputs`` has nothing to copy.

    Args:
        scale, scale_factor, keep_ratio, clip_object_border: as in the parent.
    """

    def __init__(
        self,
        scale: int | tuple[int, int] | None = None,
        *,
        scale_factor: float | tuple[float, float] | None = None,
        keep_ratio: bool = False,
        clip_object_border: bool = True,
    ) -> None:
        super().__init__(
            scale=scale,
            scale_factor=scale_factor,
            keep_ratio=keep_ratio,
            clip_object_border=clip_object_border,
            backend='pillow',
            interpolation='bilinear',
        )

    def _resize_img(self, results: dict[str, Any]) -> None:
        image = check_bytes(results['img'], self)
        if not torch_resizes_quickly():
            super()._resize_img(results)
            return
        height, width = image.shape[:2]
        size = rescale_size((width, height), results['scale']) if self.keep_ratio else results['scale']
        results['img'] = resized(image, size)
        results['img_shape'] = results['img'].shape[:2]
        results['scale_factor'] = (size[0] / width, size[1] / height)
        results['keep_ratio'] = self.keep_ratio


def torch_resizes_quickly() -> bool:
    """Whether torch has vector code for resizing bytes on this processor."""
    return torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512')


def resized(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A image (H, W, 3) uint8 stretched to ``size`` (width, height), bilinear and antialiased."""
    if image.strides[1] < 0:  # as mmcv mirrors; OpenCV copies that some 30 times faster than NumPy
        image = cv2.flip(image[:, ::-1], 1)
    if min(image.strides) < 0:
        image = image.copy()
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    planes = F.interpolate(batch, size=(size[1], size[0]), mode='bilinear', antialias=True)[0]
    return planes.numpy().transpose(1, 2, 0)


def antialiased(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """As :func:`resized`; by Pillow where torch has no vector code for it."""
    if torch_resizes_quickly():
        return resized(image, size)
    return imresize(image, size, interpolation='bilinear', backend='pillow')


def check_bytes(image: NDArray[Any], transform: BaseTransform) -> NDArray[Any]:
    """The image itself; InputError naming the transform unless it is (H, W, 3) uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f'{type(transform).__name__} takes images (height, width, 3) of uint8, got {image.shape} of '
            f'{image.dtype}; load them with LoadImageFromFile, and put ToUint8 behind what makes floats of them'
        )
    return image

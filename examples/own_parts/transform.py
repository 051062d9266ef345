"""A transform that copies small objects to other places of their image."""

from __future__ import annotations

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes


@TRANSFORMS.register_module()
class CopySmallObjects(BaseTransform):
    """Small objects are worth more training where there are more of them (Kisantal et al. 2019, arXiv 1902.07296).

    A copy is the box with what it shows, at a place where it overlaps no other box. Crowds are not copied. Boxes have
    to lie within the image, as behind ``CleanBoxes``.

    Args:
        most_area: objects up to so many px are copied; COCO's small ones are below 32 x 32.
        copies: of each, as far as places are found.
        tries: places that are looked at for each copy.
    """

    def __init__(self, most_area: float = 32.0**2, copies: int = 1, tries: int = 20) -> None:
        self.most_area, self.copies, self.tries = most_area, copies, tries

    def transform(self, results: dict) -> dict:
        """``results['img']`` (H, W, C), ``gt_bboxes`` in px, their labels and flags."""
        image, boxes = results['img'].copy(), results['gt_bboxes'].tensor.numpy()
        source, taken = results['img'], boxes.copy()
        copied: list[int] = []
        for i in np.repeat(np.arange(len(boxes)), self.copies):
            x1, y1, x2, y2 = (int(side) for side in (*np.floor(boxes[i, :2]), *np.ceil(boxes[i, 2:])))
            corner = None if results['gt_ignore_flags'][i] else self._place(x2 - x1, y2 - y1, image.shape, taken)
            if corner is None or np.prod(boxes[i, 2:] - boxes[i, :2]) > self.most_area:
                continue
            image[corner[1] : corner[1] + y2 - y1, corner[0] : corner[0] + x2 - x1] = source[y1:y2, x1:x2]
            taken = np.vstack([taken, boxes[i] + np.tile([corner[0] - x1, corner[1] - y1], 2).astype(np.float32)])
            copied.append(i)
        results['img'], results['gt_bboxes'] = image, HorizontalBoxes(torch.from_numpy(taken))
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            results[key] = np.concatenate([results[key], results[key][copied]])
        return results

    def _place(self, width: int, height: int, shape: tuple, taken: np.ndarray) -> tuple[int, int] | None:
        """A random left upper corner where nothing is; None: none was found."""
        if width >= shape[1] or height >= shape[0]:
            return None
        for _ in range(self.tries):  # by NumPy's global generator, which a run seeds in every worker
            x, y = np.random.randint(shape[1] - width), np.random.randint(shape[0] - height)
            apart = (taken[:, 0] >= x + width) | (taken[:, 2] <= x) | (taken[:, 1] >= y + height) | (taken[:, 3] <= y)
            if apart.all():
                return x, y
        return None

"""Transforms that mmdet's pipelines lack."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import autocast_box_type


@TRANSFORMS.register_module()
class CleanBoxes(BaseTransform):
    """Cut boxes at the picture's border and drop those of which nothing is left, as RT-DETR's authors do on loading.

    Without it a box over the border would grow onto what an expansion puts around the picture. Boxes that are turned
    inside out or hold NaN are dropped too.
    """

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
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
    """Round the picture to whole numbers 0..255.

    Colour distortion and expansion leave floats, which an antialiased resize (``backend='pillow'``) refuses; and bytes
    are a quarter of the size on the way from the data workers.
    """

    def transform(self, results: dict) -> dict:
        """``results['img']`` (H, W, 3), any number type, to uint8."""
        results['img'] = np.clip(np.rint(results['img']), 0, 255).astype(np.uint8)
        return results

"""Transforms that mmdet's pipelines lack."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS


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

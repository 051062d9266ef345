"""The mathematics of the RT-DETR family on plain tensors: torch and SciPy only, no mmdet.

Letters used for shapes, here and above: B images, N tokens, Q queries, L layers, C classes, D width, H heads,
T ground-truth boxes of the whole batch, M matched pairs.

Boxes are ``cx, cy, w, h`` normalised to [0, 1] by the padded input's width and height, unless a name says otherwise:
``_xyxy`` are corners, ``_unact`` are logits (before the sigmoid), ``_px`` are pixels.
"""

from .anchors import grid_anchors
from .boxes import (
    box_cxcywh_to_xyxy,
    box_iou_elementwise,
    box_xyxy_to_cxcywh,
    generalized_box_iou_elementwise,
    inverse_sigmoid,
)
from .deformable_attention import multi_scale_deformable_attention
from .denoising import DenoisingLayout, contrastive_noise, denoising_layout
from .matching import MatchCosts, hungarian_pairs
from .position_encoding import sine_position_encoding_2d
from .selection import gather_tokens, top_detections, top_tokens
from .varifocal import varifocal_loss

__all__ = [
    'DenoisingLayout',
    'MatchCosts',
    'box_cxcywh_to_xyxy',
    'box_iou_elementwise',
    'box_xyxy_to_cxcywh',
    'contrastive_noise',
    'denoising_layout',
    'gather_tokens',
    'generalized_box_iou_elementwise',
    'grid_anchors',
    'hungarian_pairs',
    'inverse_sigmoid',
    'multi_scale_deformable_attention',
    'sine_position_encoding_2d',
    'top_detections',
    'top_tokens',
    'varifocal_loss',
]

"""The mathematics of the RT-DETR family on plain tensors: torch and SciPy only, no mmdet.

Letters used for shapes, here and above: B images, N tokens, Q queries, L layers, C classes, D width, H heads,
T ground-truth boxes of the whole batch, M matched pairs.

Boxes are ``cx, cy, w, h`` normalised to [0, 1] by the padded input's width and height, unless a name says otherwise:
``_xyxy`` are corners, ``_unact`` are logits (before the sigmoid), ``_px`` are pixels.
"""

from .anchors import grid_anchors
from .boxes import (
    OVERLAPS,
    box_cxcywh_to_xyxy,
    box_iou_elementwise,
    box_xyxy_to_cxcywh,
    complete_box_iou_elementwise,
    distance_box_iou_elementwise,
    generalized_box_iou_elementwise,
    inverse_sigmoid,
)
from .deformable_attention import choose_backend, multi_scale_deformable_attention
from .denoising import DenoisingLayout, denoising_layout, first_group, noisy_truth
from .distribution import (
    EdgeTargets,
    balance,
    balanced_mean,
    bin_values,
    distances_to_boxes,
    distillation_divergence,
    edge_cross_entropy,
    edge_targets,
    expected_distances,
)
from .matching import MatchCosts, QualityCost, hungarian_pairs, union_pairs
from .position_encoding import sine_anchor_encoding, sine_encoding, sine_position_encoding_2d, sine_token_encoding
from .precision import FLOAT16_MAX, as_float, within_range, without_gradients
from .quality_losses import matchability_aware_loss, varifocal_loss
from .rotary import Rotary, rotary_periods, rotary_tables, rotate
from .selection import gather_shared, gather_tokens, top_detections, top_tokens, without_overlaps
from .table_cache import TableCache

__all__ = [
    'FLOAT16_MAX',
    'OVERLAPS',
    'DenoisingLayout',
    'EdgeTargets',
    'MatchCosts',
    'QualityCost',
    'Rotary',
    'TableCache',
    'as_float',
    'balance',
    'balanced_mean',
    'bin_values',
    'box_cxcywh_to_xyxy',
    'box_iou_elementwise',
    'box_xyxy_to_cxcywh',
    'choose_backend',
    'complete_box_iou_elementwise',
    'denoising_layout',
    'distance_box_iou_elementwise',
    'distances_to_boxes',
    'distillation_divergence',
    'edge_cross_entropy',
    'edge_targets',
    'expected_distances',
    'first_group',
    'gather_shared',
    'gather_tokens',
    'generalized_box_iou_elementwise',
    'grid_anchors',
    'hungarian_pairs',
    'inverse_sigmoid',
    'matchability_aware_loss',
    'multi_scale_deformable_attention',
    'noisy_truth',
    'rotary_periods',
    'rotary_tables',
    'rotate',
    'sine_anchor_encoding',
    'sine_encoding',
    'sine_position_encoding_2d',
    'sine_token_encoding',
    'top_detections',
    'top_tokens',
    'union_pairs',
    'varifocal_loss',
    'within_range',
    'without_gradients',
    'without_overlaps',
]

"""What the authors' decoders keep in a file beside weights, and need for a strict load: it follows from a config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..core import grid_anchors
from .rtdetr import POINT_COUNTS

_OFFSETS = re.compile(r'(decoder\.decoder\.layers\.\d+)\.cross_attn\.sampling_offsets\.weight')
_FUSION = re.compile(r'encoder\.fpn_block(?:s\.\d+)?\.')
_NUM_HEADS = 8
_UNEQUAL_POINTS = {(3, 12): (3, 6, 3), (2, 6): (4, 2)}
"""Of decoders that refine distributions, by numbers of levels and of points; all others have equal numbers."""
_COARSEST_STRIDE = 32
_SIDE = 640
_DEIMV2_SIDES = {64: 320, 96: 416}
"""Of Atto and Femto, by the width of their decoders."""


def decoder_buffers(
    weights: Mapping[str, Tensor],
    target: str,
    num_points: Sequence[int] | int | None = None,
    input_size: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """One over each point's number of points in its level, and the anchors of one input size with which are valid.

    Version 1 of RT-DETR keeps none of them in a file, and weights without a decoder need none.

    Args:
        weights: under the names of the authors' ``target``.
        num_points: sampling points a head of each level, finest first, or one number for all; None: as the authors'
            configs have them.
        input_size: height and width in px; None: as the authors' configs have it, 640 x 640 but for two of DEIMv2.
    """
    layers = {match[1]: weights[match[0]] for match in map(_OFFSETS.fullmatch, weights) if match}
    if target == 'rtdetr' or not layers:
        return {}
    num_levels = 1 + len({match[0] for match in map(_FUSION.match, weights) if match})
    if num_points is None:
        refines = any('.lqe_layers.' in key for key in weights)
        num_points = _authors_points(len(next(iter(layers.values()))) // (2 * _NUM_HEADS), num_levels, refines)
    elif isinstance(num_points, int):
        num_points = (num_points,) * num_levels
    scale = torch.tensor([1 / number for number in num_points for _ in range(number)])
    height, width = input_size or _authors_size(weights, target)
    strides = [_COARSEST_STRIDE >> level for level in reversed(range(num_levels))]
    anchors, valid = grid_anchors([(height // stride, width // stride) for stride in strides])
    return {
        'decoder.anchors': torch.where(valid, anchors, torch.inf),
        'decoder.valid_mask': valid,
        **{f'{layer}{POINT_COUNTS}': scale.clone() for layer in layers},
    }


def _authors_points(total: int, num_levels: int, refines: bool) -> Sequence[int]:
    equal = (total // num_levels,) * num_levels
    return _UNEQUAL_POINTS.get((num_levels, total), equal) if refines else equal


def _authors_size(weights: Mapping[str, Tensor], target: str) -> tuple[int, int]:
    side = _SIDE
    if target == 'deimv2':
        side = _DEIMV2_SIDES.get(weights['decoder.enc_score_head.weight'].shape[1], side)
    return side, side

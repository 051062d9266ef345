"""Multi-scale deformable attention (Deformable DETR, eq. 3) without compiled operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_scale_deformable_attention(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of values read at fractional places of several maps, bilinearly; outside a map everything is 0.

    P sampling points a level and head; the others as in :mod:`mmdet_iouquery.core`, with V = number of levels.

    Args:
        value: (B, N, H, D / H), the levels' tokens one after the other, row by row.
        spatial_shapes: height and width of each of the V levels; their products sum to N.
        sampling_locations: (B, Q, H, V, P, 2), x and y, [0, 1] from a map's outer edge to the other.
        attention_weights: (B, Q, H, V, P), of the locations' type.

    Returns:
        (B, Q, D), of the value's type, but computed in the locations', as half precision is too coarse for those.
    """
    batch, _, heads, head_dims = value.shape
    queries, levels, points = sampling_locations.shape[1], len(spatial_shapes), sampling_locations.shape[4]
    # grid_sample wants (B * H, channels, h, w) and coordinates in [-1, 1]
    maps = (
        value.to(sampling_locations.dtype)
        .permute(0, 2, 3, 1)
        .flatten(0, 1)
        .split([h * w for h, w in spatial_shapes], dim=2)
    )
    grids = (2 * sampling_locations - 1).transpose(1, 2).flatten(0, 1)
    sampled = [
        F.grid_sample(
            level_map.unflatten(2, shape),
            grids[:, :, level],
            mode='bilinear',
            padding_mode='zeros',
            align_corners=False,
        )
        for level, (level_map, shape) in enumerate(zip(maps, spatial_shapes))
    ]
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    attended = (torch.cat(sampled, dim=-1) * weights).sum(-1)
    return attended.reshape(batch, heads * head_dims, queries).transpose(1, 2).to(value.dtype)

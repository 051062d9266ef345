"""Deformable attention by ``grid_sample``: any device, and every exporter knows it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    num_points: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    sampling: str,
) -> Tensor:
    """Back end of :func:`.multi_scale_deformable_attention`, one call of ``grid_sample`` a level."""
    maps = value.to(locations.dtype).permute(0, 2, 3, 1).split([h * w for h, w in spatial_shapes], dim=3)
    levels = [level.flatten(1, 2).unflatten(2, shape) for level, shape in zip(maps, spatial_shapes)]
    return attend_maps(levels, num_points, locations, weights, sampling).to(value.dtype)


def attend_maps(
    maps: Sequence[Tensor], num_points: Sequence[int], locations: Tensor, weights: Tensor, sampling: str
) -> Tensor:
    """The same, (B, Q, D), of values as maps (B, D, h, w), finest first, of the locations' type."""
    heads = locations.shape[2]
    # grid_sample wants (B * H, channels, h, w) and coordinates in [-1, 1]; the number of images is written nowhere, as
    # an exporter would keep it
    grids = locations.transpose(1, 2).flatten(0, 1).split(list(num_points), dim=2)
    sampled = [_read(level.unflatten(1, (heads, -1)).flatten(0, 1), grid, sampling) for level, grid in zip(maps, grids)]
    shares = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)
    attended = (torch.cat(sampled, dim=-1) * shares).sum(-1)
    return attended.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)


def _read(level_map: Tensor, locations: Tensor, sampling: str) -> Tensor:
    """A map (B * H, channels, h, w) at (B * H, Q, P, 2): (B * H, channels, Q, P)."""
    if sampling == 'bilinear':
        grid = 2 * locations - 1
        return F.grid_sample(level_map, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
    height, width = level_map.shape[-2:]
    x, y = ((share * size + 0.5).long() for share, size in zip(locations.detach().unbind(-1), (width, height)))
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    read = level_map.flatten(2).gather(2, index.flatten(1).unsqueeze(1).expand(-1, level_map.shape[1], -1))
    return read.unflatten(2, index.shape[1:])

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
    heads = value.shape[2]
    # grid_sample wants (B * H, channels, h, w) and coordinates in [-1, 1]; the number of images is written nowhere, as
    # an exporter would keep it
    maps = value.to(locations.dtype).permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in spatial_shapes], dim=2)
    grids = locations.transpose(1, 2).flatten(0, 1).split(list(num_points), dim=2)
    sampled = [
        _read(level_map.unflatten(2, shape), grid, sampling)
        for level_map, shape, grid in zip(maps, spatial_shapes, grids)
    ]
    shares = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)
    attended = (torch.cat(sampled, dim=-1) * shares).sum(-1)
    return attended.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2).to(value.dtype)


def _read(level_map: Tensor, locations: Tensor, sampling: str) -> Tensor:
    """A map (B * H, channels, h, w) at (B * H, Q, P, 2): (B * H, channels, Q, P)."""
    if sampling == 'bilinear':
        grid = 2 * locations - 1
        return F.grid_sample(level_map, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
    height, width = level_map.shape[-2:]
    x, y = ((place * size + 0.5).long() for place, size in zip(locations.detach().unbind(-1), (width, height)))
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    read = level_map.flatten(2).gather(2, index.flatten(1).unsqueeze(1).expand(-1, level_map.shape[1], -1))
    return read.unflatten(2, index.shape[1:])

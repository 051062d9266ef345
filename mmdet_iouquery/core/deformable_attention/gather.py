"""Deformable attention by reading rows: for runtimes that lack ``GridSample``, or compute it wrongly.

Of what an exporter writes, one ``Gather`` reads the four pixels around each point, and one matrix product sums them.
"""

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
    """Back end of :func:`.multi_scale_deformable_attention`.

    Sizes of maps and the number of images may be symbols of a graph: no number of theirs becomes a constant.
    """
    batch, tokens, heads = value.shape[:3]
    width, height, start = _maps(spatial_shapes, num_points, locations)
    x, y = locations.unbind(-1)  # (B, Q, H, S)
    if sampling == 'bilinear':
        token, shares = _corners(x * width - 0.5, y * height - 0.5, width, height)
        shares = shares * weights.unsqueeze(-1)
    else:
        x, y = (_held((place.detach() * size + 0.5).floor(), size) for place, size in ((x, width), (y, height)))
        token, shares = (y * width + x).unsqueeze(-1), weights.unsqueeze(-1)
    image, head = (torch.arange(number, device=value.device) for number in (batch, heads))
    token = token.long() + start.unsqueeze(-1)  # (B, Q, H, S, 4 or 1)
    row = (token + image.view(-1, 1, 1, 1, 1) * tokens) * heads + head.view(-1, 1, 1)
    read = F.embedding(row.flatten(3), value.flatten(0, 2))  # (B, Q, H, 4 S or S, D / H)
    return (shares.flatten(3).unsqueeze(-2).to(value.dtype) @ read).flatten(2)


def _maps(
    spatial_shapes: Sequence[tuple[int, int]], num_points: Sequence[int], like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the map that each of the S points reads, its width, its height, and its first token (int64), each (S,)."""
    widths, heights, starts, start = [], [], [], 0
    for (height, width), points in zip(spatial_shapes, num_points):
        widths.append(like.new_full((points,), width))
        heights.append(like.new_full((points,), height))
        starts.append(torch.full((points,), start, dtype=torch.int64, device=like.device))
        start = start + height * width
    return torch.cat(widths), torch.cat(heights), torch.cat(starts)


def _corners(x: Tensor, y: Tensor, width: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    """The four pixels around each point (...), as their numbers in a map row by row, and their shares: both (..., 4).

    A pixel outside the map has no share, and the number of one inside it.

    Args:
        x, y: from pixel centres: 0 is the centre of the first.
    """
    numbers, shares = [], []
    left, top = x.floor(), y.floor()
    for row in (top, top + 1):
        of_row = _share(y, row, height)
        row_start = _held(row, height) * width
        for column in (left, left + 1):
            numbers.append(row_start + _held(column, width))
            shares.append(of_row * _share(x, column, width))
    return torch.stack(numbers, dim=-1), torch.stack(shares, dim=-1)


def _share(place: Tensor, pixel: Tensor, size: Tensor) -> Tensor:
    """Of a point at ``place`` the share, on one axis, of a pixel next to it: none where there is no such pixel."""
    inside = (pixel >= 0) & (pixel < size)
    return (1 - (place - pixel).abs()) * inside.to(place.dtype)


def _held(pixel: Tensor, size: Tensor) -> Tensor:
    """A pixel number inside the map."""
    return pixel.clamp(min=0).minimum(size - 1)

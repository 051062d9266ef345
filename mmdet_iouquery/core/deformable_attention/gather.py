"""Deformable attention by reading rows: for runtimes that lack ``GridSample``, or compute it wrongly.

Of what an exporter writes, one ``Gather`` reads the four pixels around each point, and one matrix product sums them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
    maps = _Maps.of(spatial_shapes, num_points, locations)
    read = _corners if sampling == 'bilinear' else _nearest
    x, y = locations.unbind(-1)  # (B, Q, H, S)
    token, shares = read(x, y, maps)
    token = token.long() + maps.start.unsqueeze(-1)  # (B, Q, H, S, 4), or 1 instead of 4
    batch, tokens, heads = value.shape[:3]
    image, head = (torch.arange(number, device=value.device) for number in (batch, heads))
    row = (token + image.view(-1, 1, 1, 1, 1) * tokens) * heads + head.view(-1, 1, 1)
    rows = F.embedding(row.flatten(3), value.flatten(0, 2))  # (B, Q, H, 4 S, D / H)
    shares = (shares * weights.unsqueeze(-1)).flatten(3).unsqueeze(-2)
    return (shares.to(value.dtype) @ rows).flatten(2)


class _Maps(NamedTuple):
    """The map that each of the S points reads."""

    width: Tensor
    """(S,) in pixels, in the locations' type."""
    height: Tensor
    """(S,) likewise."""
    start: Tensor
    """(S,) int64, the map's first token."""

    @classmethod
    def of(cls, spatial_shapes: Sequence[tuple[int, int]], num_points: Sequence[int], like: Tensor) -> _Maps:
        widths, heights, starts, start = [], [], [], 0
        for (height, width), points in zip(spatial_shapes, num_points):
            widths.append(like.new_full((points,), width))
            heights.append(like.new_full((points,), height))
            starts.append(torch.full((points,), start, dtype=torch.int64, device=like.device))
            start = start + height * width
        return cls(torch.cat(widths), torch.cat(heights), torch.cat(starts))


def _corners(x: Tensor, y: Tensor, maps: _Maps) -> tuple[Tensor, Tensor]:
    """The four pixels around each point (...), as numbers in their map, row by row, and their shares: both (..., 4)."""
    left, shares_x = _pair(x * maps.width - 0.5, maps.width)
    top, shares_y = _pair(y * maps.height - 0.5, maps.height)
    # a map of one pixel has no second one on that axis
    right = (maps.width > 1).to(x.dtype)
    below = (maps.height > 1).to(x.dtype) * maps.width
    others = torch.stack([torch.zeros_like(right), right, below, below + right], dim=-1)
    shares = [of_y * of_x for of_y in shares_y for of_x in shares_x]
    return (top * maps.width + left).unsqueeze(-1) + others, torch.stack(shares, dim=-1)


def _pair(position: Tensor, size: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """On one axis the first of the two pixels around a position, or of the nearest two of the map, and their shares.

    A pixel's share is ``max(0, 1 - |distance|)``: less than all at a position beyond the outermost pixels, then none.
    """
    several = (size > 1).to(position.dtype)
    first = _held(position.floor(), size - 1 - several)
    distance = position - first
    shares = (1 - distance.abs()).clamp(min=0), (1 - (distance - 1).abs()).clamp(min=0) * several
    return first, shares


def _nearest(x: Tensor, y: Tensor, maps: _Maps) -> tuple[Tensor, Tensor]:
    """The one pixel that holds each point, as :func:`_corners` gives four; both (..., 1), its share being 1."""
    column = _held((x.detach() * maps.width + 0.5).floor(), maps.width - 1)
    row = _held((y.detach() * maps.height + 0.5).floor(), maps.height - 1)
    pixel = (row * maps.width + column).unsqueeze(-1)
    return pixel, torch.ones_like(pixel)


def _held(pixel: Tensor, last: Tensor) -> Tensor:
    """Numbers from 0 to ``last``; 0 for what is no number, as an index must be one."""
    return torch.where(pixel > 0, pixel.minimum(last), 0.0)

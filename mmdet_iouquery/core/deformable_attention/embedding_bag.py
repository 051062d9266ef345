"""Deformable attention as weighted sums of table rows, which torch's ``embedding_bag`` makes in one pass over the rows.

A head's channels of one token are a row. A query's head reads up to four rows a sampling point, each by the attention
weight times the share that bilinear interpolation gives it. The gradient of the rows is such a sum as well, with the
parts of rows and queries exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...compat import row_products
from ..table_cache import TableCache


def attend(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    num_points: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    sampling: str,
) -> Tensor:
    """Back end of :func:`.multi_scale_deformable_attention`.

    Points and shares are computed in the locations' type, and summed up in the value's.
    """
    tokens, heads = value.shape[1:3]
    shapes = tuple((height, width) for height, width in spatial_shapes)  # lists are no keys
    layout = shapes, tuple(num_points), value.shape[0], tokens, heads
    like = locations.dtype, locations.device
    grid = _grids((layout, like), lambda: _Grid.of(*layout, *like))
    if sampling == 'bilinear':
        index, shares = _Corners.apply(locations, weights, grid)  # type: ignore[no-untyped-call]
    else:
        pixel = (locations.detach().movedim(-1, 0) * grid.size + 0.5).int()
        x, y = torch.minimum(pixel.clamp(min=0), grid.size.int() - 1)
        index, shares = x * grid.step[0] + y * grid.step[1] + grid.first_row, weights
    # one bag for each image, query and head
    index, shares = index.flatten(0, 2).flatten(1), shares.flatten(0, 2).flatten(1)
    rows = value.reshape(-1, value.shape[-1])
    read = _WeightedRows.apply(rows, index, shares.to(value.dtype))  # type: ignore[no-untyped-call]
    return read.view(*locations.shape[:2], -1)


class _Grid(NamedTuple):
    """The map that each of the S points reads, x before y."""

    size: Tensor
    """(2, 1, 1, 1, S), width and height in pixels, in the locations' type."""
    several: Tensor
    """The same, 1 or 0: a map of one pixel has no second one on that axis."""
    last: Tensor
    """The same, the last pixel that has a next one, if there are several."""
    step: Tensor
    """(2, S) int32, rows from a pixel to the next one on its right, and below."""
    corners: Tensor
    """(2, 2, S) int32, rows from a pixel to itself and the three next ones, y before x."""
    first_row: Tensor
    """(B, 1, H, S) int32, the map's first row."""

    @classmethod
    def of(
        cls,
        spatial_shapes: Sequence[tuple[int, int]],
        num_points: Sequence[int],
        batch: int,
        tokens: int,
        heads: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> _Grid:
        columns, start = [], 0
        for (height, width), points in zip(spatial_shapes, num_points):
            columns += [(width, height, heads, heads * width, start)] * points
            start += height * width * heads
        table = torch.tensor(columns, dtype=torch.int32, device=device).T
        image, head = (torch.arange(count, dtype=torch.int32, device=device) for count in (batch, heads))
        first_row = image.view(-1, 1, 1, 1) * (tokens * heads) + head.view(-1, 1) + table[4]
        size, step = table[:2].to(dtype).view(2, 1, 1, 1, -1), table[2:4]
        several = (size > 1).to(dtype)
        x, y = step * several.view(2, -1).int()
        corners = torch.stack([torch.zeros_like(x), x, y, x + y]).unflatten(0, (2, 2))
        return cls(size, several, size - 1 - several, step, corners, first_row)


_grids = TableCache(size=32)


class _Corners(torch.autograd.Function):
    """The four pixels around each point, as rows, and their shares: index and shares (B, Q, H, 2, 2, S), y before x.

    A pixel has the share ``max(0, 1 - |distance|)`` on either axis, so what lies outside of a map has none. To stay
    inside it, the pair of pixels on an axis is the nearest pair of the map where the point lies beyond its edge.
    """

    @staticmethod
    def forward(ctx: Any, locations: Tensor, weights: Tensor, grid: _Grid) -> tuple[Tensor, Tensor]:
        position = (locations.movedim(-1, 0).contiguous() * grid.size).sub_(0.5)
        # fmin and fmax let no NaN into an index
        low = torch.fmin(torch.fmax(position.floor(), position.new_zeros(())), grid.last)
        distance = position.sub_(low)
        of_x, of_y = torch.stack([_hat(distance), _hat(distance - 1).mul_(grid.several)], dim=-2)
        x, y = low.int()
        pixel = torch.addcmul(grid.first_row, y, grid.step[1]).addcmul_(x, grid.step[0])
        index = pixel[..., None, None, :] + grid.corners
        ctx.save_for_backward(of_x, of_y, distance, grid.several, weights, grid.size)
        ctx.mark_non_differentiable(index)
        return index, (of_y * weights.unsqueeze(-2)).unsqueeze(-2) * of_x.unsqueeze(-3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: None, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_x, of_y, distance, several, weights, size = ctx.saved_tensors
        by_y = _over_pair(grad, of_x.unsqueeze(-3), -2)  # (B, Q, H, 2, S)
        grad_weights = _over_pair(by_y, of_y, -2)
        if not ctx.needs_input_grad[0]:
            return None, grad_weights, None
        by_x = _over_pair(grad, of_y.unsqueeze(-2), -3)
        # slope of a share: one up before the pixel, one down after it
        at = distance.floor()
        rising, falling, beyond = at == -1, at == 0, at == 1
        slopes = (
            rising.to(grad.dtype) - falling.to(grad.dtype),
            (falling.to(grad.dtype) - beyond.to(grad.dtype)) * several,
        )
        along = [
            sum(by[..., corner, :] * slope[axis] for corner, slope in enumerate(slopes))
            for axis, by in enumerate((by_x, by_y))
        ]
        grad_locations = torch.stack(along) * weights * size
        return grad_locations.movedim(0, -1), grad_weights, None


def _over_pair(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """``(a * b).sum(dim)`` of a dimension of two, over which torch's sum takes several times as long as this."""
    return torch.addcmul(a.select(dim, 0) * b.select(dim, 0), a.select(dim, 1), b.select(dim, 1))


class _WeightedRows(torch.autograd.Function):
    """``shares`` (M, K) times the ``rows`` (R, D) that ``index`` (M, K) names, summed over K: (M, D)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, shares: Tensor) -> Tensor:
        ctx.save_for_backward(rows, index, shares)
        # detached, as torch keeps more for a backward pass of its own
        return F.embedding_bag(index, rows.detach(), mode='sum', per_sample_weights=shares.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, index, shares = ctx.saved_tensors
        # by row, so that memory is read in order and each row's uses stand together
        row, order = index.flatten().sort()
        bag = torch.div(order, index.shape[1], rounding_mode='floor').int()
        grad_rows = grad_shares = None
        if ctx.needs_input_grad[0]:
            uses = torch.bincount(row, minlength=rows.shape[0])
            starts, sorted_shares = (uses.cumsum(0) - uses).int(), shares.flatten().index_select(0, order)
            grad_rows = F.embedding_bag(bag, grad, offsets=starts, mode='sum', per_sample_weights=sorted_shares)
        if ctx.needs_input_grad[2]:
            grad_shares = torch.empty_like(shares).flatten().scatter_(0, order, _dot_products(rows, row, grad, bag))
            grad_shares = grad_shares.view_as(shares)
        return grad_rows, None, grad_shares


def _dot_products(a: Tensor, a_index: Tensor, b: Tensor, b_index: Tensor) -> Tensor:
    """``a[a_index] . b[b_index]``, row by row."""
    dtype = torch.promote_types(a.dtype, torch.float32)  # in half precision it would be slow
    return row_products(a.to(dtype), a_index, b.to(dtype), b_index).to(a.dtype)


def _hat(distance: Tensor) -> Tensor:
    return distance.abs().neg_().add_(1).clamp_(min=0)

"""Deformable attention read pixel by pixel in double precision: what every back end is held to.

Pixel (row, column) of a map is centred at ((column + 0.5) / width, (row + 0.5) / height). Autograd makes the gradients;
where a location is exactly on a centre, its gradient is the one towards larger coordinates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def attend(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    num_points: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    sampling: str,
) -> Tensor:
    """Arguments as back ends take them: value (B, N, H, D / H), locations (B, Q, H, S, 2), weights (B, Q, H, S).

    Returns (B, Q, D) in double precision.
    """
    value, locations, weights = value.double(), locations.double(), weights.double()
    pixels = bilinear_pixels if sampling == 'bilinear' else discrete_pixel
    rows = []
    for b, q, h in itertools.product(*map(range, weights.shape[:3])):
        total, token, point = value.new_zeros(value.shape[3]), 0, 0
        for (height, width), points in zip(spatial_shapes, num_points):
            for s in range(point, point + points):
                for row, column, share in pixels(locations[b, q, h, s], height, width):
                    total = total + weights[b, q, h, s] * share * value[b, token + row * width + column, h]
            token, point = token + height * width, point + points
        rows.append(total)
    return torch.stack(rows).reshape(*weights.shape[:2], -1)


def bilinear_pixels(location: Tensor, height: int, width: int) -> Iterator[tuple[int, int, Tensor]]:
    """Row, column and share of those of the four pixels about a location (x, y) that are on the map."""
    x, y = location[0] * width - 0.5, location[1] * height - 0.5
    left, top = math.floor(x.item()), math.floor(y.item())
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= row < height and 0 <= column < width:
            share_x = x - left if column > left else 1 - (x - left)
            share_y = y - top if row > top else 1 - (y - top)
            yield row, column, share_x * share_y


def discrete_pixel(location: Tensor, height: int, width: int) -> Iterator[tuple[int, int, float]]:
    """The one pixel that RT-DETRv2's discrete sampling reads."""
    x, y = location.tolist()
    yield min(max(int(y * height + 0.5), 0), height - 1), min(max(int(x * width + 0.5), 0), width - 1), 1.0

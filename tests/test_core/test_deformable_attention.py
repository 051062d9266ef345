"""Deformable attention against a loop in double precision."""

from __future__ import annotations

import math

import pytest
import torch

from mmdet_iouquery.core import multi_scale_deformable_attention

SHAPES = ((5, 3), (2, 4))


def loop(value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Read pixel by pixel: pixel (i, j) of an (h, w) map is centred at ((j + 0.5) / w, (i + 0.5) / h)."""
    batch, _, heads, dims = value.shape
    out = torch.zeros(batch, locations.shape[1], heads, dims, dtype=value.dtype)
    start = 0
    for level, (h, w) in enumerate(SHAPES):
        for b, q, n, p in torch.cartesian_prod(
            *map(torch.arange, (batch, locations.shape[1], heads, weights.shape[-1]))
        ):
            x, y = (locations[b, q, n, level, p] * torch.tensor([w, h]) - 0.5).tolist()
            for j in (math.floor(x), math.floor(x) + 1):
                for i in (math.floor(y), math.floor(y) + 1):
                    if 0 <= i < h and 0 <= j < w:
                        share = (1 - abs(x - j)) * (1 - abs(y - i))
                        out[b, q, n] += share * weights[b, q, n, level, p] * value[b, start + i * w + j, n]
        start += h * w
    return out.flatten(2)


def arguments(spread: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    value = torch.randn(2, 23, 2, 3, dtype=torch.float64)
    locations = torch.rand(2, 4, 2, 2, 3, 2, dtype=torch.float64) * (1 + 2 * spread) - spread
    weights = torch.rand(2, 4, 2, 2, 3, dtype=torch.float64)
    return value, locations, weights


@pytest.mark.parametrize('spread', [0.0, 0.5], ids=['inside', 'beyond the edges'])
def test_values_equal_a_loop(spread: float) -> None:
    value, locations, weights = arguments(spread)
    ours = multi_scale_deformable_attention(value, SHAPES, locations, weights)
    torch.testing.assert_close(ours, loop(value, locations, weights), rtol=0, atol=1e-12)


def test_gradients_equal_finite_differences() -> None:
    value, locations, weights = (x[:1, :2] if x.dim() > 4 else x[:1] for x in arguments(0.2))
    inputs = tuple(x.clone().requires_grad_() for x in (value, locations, weights))
    assert torch.autograd.gradcheck(lambda v, s, a: multi_scale_deformable_attention(v, SHAPES, s, a), inputs)


def test_centre_of_a_pixel_reads_that_pixel() -> None:
    value = torch.arange(23.0).view(1, 23, 1, 1)
    locations = torch.tensor([2.5 / 3, 1.5 / 5]).expand(1, 1, 1, 2, 1, 2)
    weights = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2, 1)
    assert multi_scale_deformable_attention(value, SHAPES, locations, weights).item() == pytest.approx(1 * 3 + 2)

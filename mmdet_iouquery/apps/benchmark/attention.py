"""Deformable attention: the back ends that run here against each other, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core import multi_scale_deformable_attention
from ...core.deformable_attention import BACKENDS, why_not
from ..timing import rows_of, time_in_turn

AGAINST = 'grid_sample'
HEADS, WIDTH, POINTS = 8, 32, 4


def attention(*, batches: Sequence[int], queries: int, side: int, rounds: int) -> list[dict[str, Any]]:
    """Three levels of images of ``side`` px, strides 8 to 32; forward alone, and forward and backward."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    names = [name for name in BACKENDS if why_not(name, device, (POINTS,) * 3, 'bilinear') is None]
    dtypes = [torch.float32, torch.bfloat16] if device.type == 'cuda' else [torch.float32]
    rows = []
    for dtype in dtypes:
        for batch in batches:
            inputs = _inputs(batch, queries, side, device, dtype)
            for backward in (False, True):
                sides = {name: _call(name, *inputs, backward=backward) for name in names}
                settings = dict(batch=batch, queries=queries, side_px=side, dtype=str(dtype), backward=backward)
                rows += rows_of(time_in_turn(sides, rounds), AGAINST, **settings)
    return rows


def _inputs(
    batch: int, queries: int, side: int, device: torch.device, dtype: torch.dtype
) -> tuple[list[tuple[int, int]], list[Tensor], Tensor]:
    torch.manual_seed(0)
    shapes = [(side // stride, side // stride) for stride in (8, 16, 32)]
    tokens, levels = sum(h * w for h, w in shapes), len(shapes)
    centres = torch.rand(batch, queries, 1, 1, 1, 2)
    locations = centres + 0.1 * torch.randn(batch, queries, HEADS, levels, POINTS, 2)
    weights = torch.rand(batch, queries, HEADS, levels * POINTS).softmax(-1).unflatten(-1, (levels, POINTS))
    value = torch.randn(batch, tokens, HEADS, WIDTH).to(dtype)
    leaves = [leaf.to(device).requires_grad_() for leaf in (value, locations, weights)]
    return shapes, leaves, torch.randn(batch, queries, HEADS * WIDTH).to(device, dtype)


def _call(
    name: str, shapes: list[tuple[int, int]], leaves: list[Tensor], grad: Tensor, *, backward: bool
) -> Callable[[], object]:
    def call() -> object:
        value, locations, weights = leaves
        with torch.set_grad_enabled(backward):
            read = multi_scale_deformable_attention(value, shapes, locations, weights, backend=name)
            return torch.autograd.grad(read, leaves, grad) if backward else read

    return call

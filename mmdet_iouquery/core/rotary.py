"""Rotary position codes of a map's tokens, on two axes (Su et al. 2021, "RoFormer"; DINOv3's form)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Rotary = tuple[Tensor, Tensor]
"""Cosines and signed sines (N, d), float32: what :func:`rotate` turns N tokens' channels by."""


def rotary_periods(head_dims: int, *, base: float = 100.0, device: torch.device | str | None = None) -> Tensor:
    """``base ** (k / (d / 4))`` for k < d / 4, float32: wave lengths of a code, in half maps.

    Raises:
        ValueError: ``head_dims`` is not a multiple of 4.
    """
    if head_dims % 4:
        raise ValueError(f'a 2-D rotary code needs head_dims divisible by 4, got {head_dims}')
    exponent = torch.arange(head_dims // 4, dtype=torch.float32, device=device) / (head_dims // 4)
    return torch.as_tensor(base, dtype=torch.float32, device=device) ** exponent


def rotary_tables(
    height: int,
    width: int,
    head_dims: int,
    *,
    base: float = 100.0,
    num_prefix: int = 0,
    scale: Tensor | None = None,
    device: torch.device | str | None = None,
) -> Rotary:
    """The code of a map's tokens, row by row, behind ``num_prefix`` tokens without a place, which are not turned.

    Coordinates of the tokens' centres run from -1 to 1 on either axis, whatever the map's sides. Channels hold the
    angles of y, then those of x, then both again.

    Args:
        scale: a number that coordinates are multiplied by; None: 1.
    """
    y, x = (2 * (torch.arange(side, dtype=torch.float32, device=device) + 0.5) / side - 1 for side in (height, width))
    coordinates = torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1).flatten(0, 1).unsqueeze(-1)
    if scale is not None:
        coordinates = coordinates * scale
    angles = (2 * math.pi * coordinates / rotary_periods(head_dims, base=base, device=device)).flatten(1)
    cosine, sine = angles.cos(), angles.sin()
    rows = [0, 0, num_prefix, 0]
    return (
        F.pad(torch.cat([cosine, cosine], dim=-1), rows, value=1.0),
        F.pad(torch.cat([-sine, sine], dim=-1), rows),
    )


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn channels of ``x`` (B, N, ..., d), pairs of which are half of d apart, by each token's angles."""
    shape = (-1, *[1] * (x.dim() - 3), x.shape[-1])
    cosine, sine = (table.to(x.dtype).reshape(shape) for table in rotary)
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([second, first], dim=-1) * sine

"""Sine codes of positions."""

from __future__ import annotations

import torch
from torch import Tensor


def sine_position_encoding_2d(
    height: int,
    width: int,
    embed_dims: int,
    *,
    temperature: float = 10000.0,
    column_major: bool = True,
    device: torch.device | str | None = None,
) -> Tensor:
    """Sine-cosine codes of a map's positions, (height * width, embed_dims), float32.

    A quarter of the channels each holds sin and cos of one coordinate, then sin and cos of the other, at frequencies
    ``temperature ** -(i / (embed_dims / 4))``.

    The rows are written in the tokens' own order, row by row, only with ``column_major=False``. The authors' RT-DETR
    enumerates the codes column by column and adds them to tokens that run row by row; their weights expect that
    (``column_major=True``). On square maps the two are the same.

    Raises:
        ValueError: ``embed_dims`` is not a multiple of 4.
    """
    if embed_dims % 4:
        raise ValueError(f'a 2-D sine code needs embed_dims divisible by 4, got {embed_dims}')
    exponent = torch.arange(embed_dims // 4, dtype=torch.float32, device=device) / (embed_dims // 4)
    omega = 1.0 / temperature**exponent
    outer, inner = (width, height) if column_major else (height, width)
    first, second = torch.meshgrid(
        torch.arange(outer, dtype=torch.float32, device=device),
        torch.arange(inner, dtype=torch.float32, device=device),
        indexing='ij',
    )
    first, second = first.flatten()[:, None] * omega, second.flatten()[:, None] * omega
    return torch.cat([first.sin(), first.cos(), second.sin(), second.cos()], dim=1)

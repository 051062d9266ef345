"""Sine codes of positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def sine_encoding(x: Tensor, num_feats: int, *, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines, alternating, of numbers ``x`` (...) in [0, 1]: (..., num_feats).

    Channels 2i and 2i + 1 are sin and cos of ``2 pi x / temperature ** (2i / num_feats)``.

    Raises:
        ValueError: ``num_feats`` is odd.
    """
    if num_feats % 2:
        raise ValueError(f'a sine code needs an even number of channels, got {num_feats}')
    exponent = torch.arange(0, num_feats, 2, dtype=torch.float32, device=x.device) / num_feats
    angle = x.unsqueeze(-1) * (2 * math.pi / temperature**exponent)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def sine_anchor_encoding(anchors: Tensor, embed_dims: int, *, temperature: float = 10000.0) -> Tensor:
    """Sine codes of anchors (..., 4), (..., 2 * embed_dims): y, x, w, h, each in ``embed_dims / 2`` channels.

    The first half is the code of the centre, as :func:`sine_token_encoding` writes it (DAB-DETR, eq. 2).
    """
    x, y, w, h = sine_encoding(anchors, embed_dims // 2, temperature=temperature).unbind(-2)
    return torch.cat([y, x, w, h], dim=-1)


def sine_token_encoding(
    spatial_shapes: Sequence[tuple[int, int]],
    embed_dims: int,
    *,
    temperature: float = 10000.0,
    extent: Tensor | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Sine codes of the centres of several maps' tokens, (1 or B, N, embed_dims): y, then x.

    Args:
        spatial_shapes: height and width of each map; their products sum to N.
        extent: (B, 2), the part of the maps' width and height that counts as 1; None: the whole, for any batch.
    """
    levels = []
    for height, width in spatial_shapes:
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        levels.append(torch.stack(torch.meshgrid(y, x, indexing='ij'), dim=-1).flatten(0, 1))
    yx = torch.cat(levels).unsqueeze(0)
    if extent is not None:
        yx = yx / extent.flip(-1).unsqueeze(1)
    return sine_encoding(yx, embed_dims // 2, temperature=temperature).flatten(-2)

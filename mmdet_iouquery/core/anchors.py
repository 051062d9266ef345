"""Anchors of the encoder's tokens, from which the selected queries start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

INVALID_ANCHOR_UNACT = 1e4
"""Logit of an anchor that must not be used. Finite, so that no product with it is NaN, and inside half precision's
range; its sigmoid is exactly 1, as that of the infinity which the authors' code writes."""


def grid_anchors(
    spatial_shapes: Sequence[tuple[int, int]],
    *,
    grid_size: float = 0.05,
    eps: float = 1e-2,
    extent: Tensor | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """One square anchor a token, centred on it, twice as wide on each coarser level (as in DINO and RT-DETR).

    Args:
        spatial_shapes: height and width in tokens of each level, finest first.
        grid_size: side of the finest level's anchors, as a fraction of the input.
        eps: an anchor is valid when all four numbers lie within (eps, 1 - eps).
        extent: (B, 2) in (0, 1], the part of the maps' width and height that anchors refer to; None: the whole.

    Returns:
        ``anchors_unact`` (1, N, 4), or (B, N, 4) with an ``extent``, float32 logits of cx, cy, w, h,
        ``INVALID_ANCHOR_UNACT`` where invalid; and ``valid`` (1 or B, N, 1), bool.
    """
    levels = []
    for level, (height, width) in enumerate(spatial_shapes):
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        side = torch.full((height, width), grid_size * 2.0**level, device=device)
        grid_y, grid_x = torch.meshgrid(y, x, indexing='ij')
        levels.append(torch.stack([grid_x, grid_y, side, side], dim=-1).flatten(0, 1))
    anchors = torch.cat(levels).unsqueeze(0)
    if extent is not None:
        centres = anchors[..., :2] / extent.unsqueeze(1)
        anchors = torch.cat([centres, anchors[..., 2:].expand(extent.shape[0], -1, -1)], dim=-1)
    valid = ((anchors > eps) & (anchors < 1 - eps)).all(-1, keepdim=True)
    return torch.where(valid, torch.log(anchors / (1 - anchors)), INVALID_ANCHOR_UNACT), valid

"""Deformable attention as a module."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...argument_checks import check_heads
from ...core import as_float, multi_scale_deformable_attention, within_range
from ...structures import Memory


class SampledAttention(NamedTuple):
    """Where queries look that read P points a head and level, V levels."""

    locations: Tensor
    """(B, Q, H, V, P, 2), x and y, [0, 1] from a map's outer edge to the other; points may lie outside."""
    weights: Tensor
    """(B, Q, H, V, P), each query's and head's sum to 1 over levels and points."""


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention around a box: each query reads a few points a head and level.

    A point's offset is a fraction of the box's size: ``offset / num_points * size / 2`` from its centre (Deformable
    DETR, appendix A.4).

    ``backend`` forces one of :data:`mmdet_iouquery.core.deformable_attention.BACKENDS`; None: the fastest that runs.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, num_levels: int, num_points: int, *, backend: str | None = None
    ) -> None:
        super().__init__()
        check_heads(num_heads, embed_dims=embed_dims)
        self.shape = (num_heads, num_levels, num_points)
        self.backend = backend
        total = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dims, 2 * total)
        self.attention_weights = nn.Linear(embed_dims, total)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Points of head k start on a ray of angle 2 pi k / H, the p-th at distance p; weights start equal."""
        num_heads, num_levels, num_points = self.shape
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        angle = torch.arange(num_heads, dtype=torch.float32) * (2 * math.pi / num_heads)
        ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
        ray = ray / ray.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, num_points + 1, dtype=torch.float32)
        offsets = ray[:, None, None, :] * distance[None, None, :, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, num_levels, -1, -1).flatten())

    def forward(self, query: Tensor, boxes: Tensor, memory: Memory) -> Tensor:
        """query (B, Q, D) and boxes (B, Q, 4), in the frame of ``memory.extent``, to (B, Q, D)."""
        value = within_range(self.value_proj(memory.tokens))
        if memory.padding is not None:
            value = value.masked_fill(memory.padding.unsqueeze(-1), 0.0)
        value = value.unflatten(-1, (self.shape[0], -1))
        locations, weights = self.sampling(query, boxes, memory)
        attended = multi_scale_deformable_attention(
            value, memory.spatial_shapes, locations, weights, backend=self.backend
        )
        return within_range(self.output_proj(attended))

    def sampling(self, query: Tensor, boxes: Tensor, memory: Memory) -> SampledAttention:
        """The points that are read, and with what weight; arguments as for a call."""
        num_heads, num_levels, num_points = self.shape
        offsets = as_float(within_range(self.sampling_offsets(query))).unflatten(-1, (*self.shape, 2))
        scores = as_float(within_range(self.attention_weights(query)))
        weights = scores.unflatten(-1, (num_heads, num_levels * num_points)).softmax(-1)
        if memory.extent is not None:  # sampling works in the frame of the maps
            boxes = boxes * memory.extent.repeat(1, 2).unsqueeze(1)
        centre, size = boxes[:, :, None, None, None].split(2, dim=-1)
        locations = centre + offsets * (0.5 / num_points) * size
        return SampledAttention(locations, weights.unflatten(-1, (num_levels, num_points)))

"""Deformable attention as a module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...argument_checks import check_backend, check_choice, check_heads, check_points
from ...core import TableCache, as_float, multi_scale_deformable_attention, within_range
from ...core.deformable_attention import SAMPLINGS
from ...structures import Memory


class SampledAttention(NamedTuple):
    """Where queries look that read S points a head, some on each level."""

    locations: Tensor
    """(B, Q, H, S, 2), level by level; x and y, [0, 1] from a map's outer edge to the other; points may lie outside."""
    weights: Tensor
    """(B, Q, H, S), each query's and head's sum to 1."""
    num_points: tuple[int, ...]
    """How many of the S points lie on each level, finest first."""


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention around a box: each query reads a few points a head and level.

    A point's offset is a fraction of the box's size: ``offset / P * size / 2`` from its centre, P being the number of
    points on its level (Deformable DETR, appendix A.4; RT-DETRv2, section 3, for levels that differ in it).

    Args:
        embed_dims: width D.
        num_heads: number of heads, H.
        num_levels: maps in the memory.
        num_points: points a head and level: one number for all levels, or one for each, finest first.
        sampling: 'bilinear' between pixels; or 'discrete', the one pixel that holds the point, for devices without
            bilinear sampling: the offsets then get no gradient, and are not trained.
        value_proj: project the memory before it is read; False: its tokens themselves are split into heads.
        output_proj: project what was read; False: it is the result.
        backend: one of :data:`mmdet_iouquery.core.deformable_attention.BACKENDS`; None: the fastest that runs.

    Raises:
        InputError: heads do not share the width, or points do not fit the levels.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_levels: int,
        num_points: int | Sequence[int],
        *,
        sampling: Literal['bilinear', 'discrete'] = 'bilinear',
        value_proj: bool = True,
        output_proj: bool = True,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        check_heads(num_heads, embed_dims=embed_dims)
        check_points(num_points, num_levels)
        check_choice(SAMPLINGS, sampling=sampling)
        check_backend(backend)
        self.num_heads = num_heads
        self.num_points = tuple(num_points) if isinstance(num_points, Sequence) else (num_points,) * num_levels
        self.sampling_mode = sampling
        self.backend = backend
        total = num_heads * sum(self.num_points)
        self.sampling_offsets = nn.Linear(embed_dims, 2 * total)
        self.attention_weights = nn.Linear(embed_dims, total)
        self.value_proj = nn.Linear(embed_dims, embed_dims) if value_proj else nn.Identity()
        self.output_proj = nn.Linear(embed_dims, embed_dims) if output_proj else nn.Identity()
        self._tables = TableCache()
        self.reset_parameters()
        self.sampling_offsets.requires_grad_(sampling != 'discrete')

    def reset_parameters(self) -> None:
        """Points of head k start on a ray of angle 2 pi k / H, a level's p-th at distance p; weights start equal."""
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for projection in (self.value_proj, self.output_proj):
            if isinstance(projection, nn.Linear):
                nn.init.xavier_uniform_(projection.weight)
                nn.init.zeros_(projection.bias)
        angle = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
        ray = ray / ray.abs().amax(-1, keepdim=True)
        distance = torch.cat([torch.arange(1, number + 1, dtype=torch.float32) for number in self.num_points])
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((ray[:, None, :] * distance[None, :, None]).flatten())

    def forward(self, query: Tensor, boxes: Tensor, memory: Memory) -> Tensor:
        """query (B, Q, D) and boxes (B, Q, 4), in the frame of ``memory.extent``, to (B, Q, D)."""
        return _projected(self.output_proj, self.read(memory, self.sampling(query, boxes, memory)))

    def read(self, memory: Memory, points: SampledAttention) -> Tensor:
        """The weighted sum of what lies at the points, (B, Q, D)."""
        value = _projected(self.value_proj, memory.tokens)
        if memory.padding is not None:
            value = value.masked_fill(memory.padding.unsqueeze(-1), 0.0)
        return multi_scale_deformable_attention(
            # no unflatten: of what it gives, torch's older exporter takes the number of images for a constant
            value.view(*value.shape[:2], self.num_heads, -1),
            memory.spatial_shapes,
            points.locations,
            points.weights,
            num_points=points.num_points,
            sampling=self.sampling_mode,
            backend=self.backend,
        )

    def sampling(self, query: Tensor, boxes: Tensor, memory: Memory) -> SampledAttention:
        """The points that are read, and with what weight; arguments as for a call."""
        offsets = as_float(within_range(self.sampling_offsets(query))).unflatten(-1, (self.num_heads, -1, 2))
        scores = as_float(within_range(self.attention_weights(query)))
        weights = scores.unflatten(-1, (self.num_heads, -1)).softmax(-1)
        if memory.extent is not None:  # sampling works in the frame of the maps
            boxes = boxes * memory.extent.repeat(1, 2).unsqueeze(1)
        centre, size = boxes[:, :, None, None].split(2, dim=-1)
        locations = centre + offsets * self._steps(offsets) * size
        return SampledAttention(locations, weights, self.num_points)

    def _steps(self, offsets: Tensor) -> Tensor | float:
        """What part of a box's size an offset of 1 is: one number, or (S, 1) where levels differ."""
        if len(set(self.num_points)) == 1:
            return 0.5 / self.num_points[0]
        steps = [[0.5 / number] for number in self.num_points for _ in range(number)]
        return self._tables((offsets.dtype, offsets.device), lambda: offsets.new_tensor(steps))

    def extra_repr(self) -> str:
        return f'num_heads={self.num_heads}, num_points={self.num_points}, sampling={self.sampling_mode!r}'


def _projected(projection: nn.Module, x: Tensor) -> Tensor:
    """``x`` itself where nothing projects it; what was read of it is a mean of it, and as far within the range."""
    return x if isinstance(projection, nn.Identity) else within_range(projection(x))

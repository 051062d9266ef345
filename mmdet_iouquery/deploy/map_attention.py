"""Deformable attention as exporters write it without copies."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..core import within_range
from ..core.deformable_attention.grid_sample import attend_maps
from ..models.layers import DeformableAttention
from ..models.layers.deformable_attention import SampledAttention
from ..structures import Memory


class MapAttention(DeformableAttention):
    """Values are projected map by map, by 1x1 convolutions, and ``GridSample`` reads the maps as they are.

    As tokens, a runtime transposes and splits the values of every layer: 8,400 x 256 numbers each at 640 x 640.
    """

    def read(self, memory: Memory, points: SampledAttention) -> Tensor:
        """As the parent's, of images without padding."""
        if memory.maps is None:
            return super().read(memory, points)
        maps = [self._projected(level).to(points.locations.dtype) for level in memory.maps]
        attended = attend_maps(maps, points.num_points, points.locations, points.weights, self.sampling_mode)
        return attended.to(memory.tokens.dtype)

    def _projected(self, level: Tensor) -> Tensor:
        """(B, D, h, w) by the projection of values, if there is one."""
        projection = self.value_proj
        if not isinstance(projection, nn.Linear):
            return level
        return within_range(F.conv2d(level, projection.weight[..., None, None], projection.bias))

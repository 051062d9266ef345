"""Attention in bfloat16."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.graph_capture import is_captured
from ..models.layers import DotProductAttention


class ProductAttention(DotProductAttention):
    """Attention from plain matrix products in bfloat16, in which torch's fused form takes over twice the time on CPUs.

    Scores are then rounded to bfloat16, as autocast rounds them in any attention that is not fused.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """As the parent's."""
        if is_captured() or query.device.type != 'cpu' or query.dtype != torch.bfloat16:
            return super().forward(query, key, value, allowed)
        batch_heads, scale = query.shape[:2], query.shape[-1] ** -0.5
        query, key, value = (x.flatten(0, 1) for x in (query, key, value))
        if allowed is None:
            score = torch.bmm(query * scale, key.transpose(1, 2))
        else:
            bias = torch.zeros_like(allowed, dtype=query.dtype).masked_fill(~allowed, -torch.inf)
            bias = bias if bias.dim() == 2 else bias.expand(*batch_heads, -1, -1).flatten(0, 1)
            score = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale)
        weights = F.dropout(score.softmax(-1), self.dropout, self.training)
        return torch.bmm(weights, value).unflatten(0, batch_heads)

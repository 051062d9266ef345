"""Attention within one map (Zhao et al. 2024, section 4.2)."""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_activation_layer
from torch import Tensor, nn

from ...core import TableCache, sine_position_encoding_2d, within_range
from ..layers import SelfAttention, as_map, as_tokens


class AIFI(nn.Module):
    """Attention-based intra-scale feature interaction: post-norm Transformer layers over one map."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        num_layers: int,
        dropout: float,
        temperature: float,
        position_order: str,
        act_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.column_major = position_order == 'column_major'
        self._tables = TableCache()
        self.layers = nn.ModuleList(
            AIFILayer(embed_dims, num_heads, feedforward_channels, dropout, act_cfg) for _ in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D, h, w)."""
        height, width = x.shape[-2:]

        def make_position() -> Tensor:
            return sine_position_encoding_2d(
                height,
                width,
                x.shape[1],
                temperature=self.temperature,
                column_major=self.column_major,
                device=x.device,
            ).to(x.dtype)

        position = self._tables((height, width, x.device, x.dtype), make_position)
        tokens = as_tokens(x)
        for layer in self.layers:
            tokens = layer(tokens, position)
        return as_map(tokens, x)


class AIFILayer(nn.Module):
    """Self-attention and feed-forward network, each followed by a layer norm; the position is added to q and k."""

    def __init__(
        self, embed_dims: int, num_heads: int, feedforward_channels: int, dropout: float, act_cfg: dict[str, Any]
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(embed_dims, num_heads, dropout)
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.act = build_activation_layer(act_cfg)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """(B, N, D) and (N, D) to (B, N, D)."""
        attended = self.self_attn(tokens, position)
        tokens = self.norm1(within_range(tokens + self.dropout(attended)))
        hidden = self.dropout(self.act(within_range(self.linear1(tokens))))
        return self.norm2(within_range(tokens + self.dropout(within_range(self.linear2(hidden)))))

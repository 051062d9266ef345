"""The layer of deformable decoders: RT-DETR's, and what D-FINE and DEIMv2 have in its places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from mmcv.cnn import build_activation_layer
from torch import Tensor, nn

from ...argument_checks import check_choice, check_configs, check_counts, check_flags, check_numbers
from ...core import as_float, within_range
from ...errors import InputError
from ...structures import Memory
from .attention import SelfAttention
from .deformable_attention import DeformableAttention
from .mlp import SwiGLU


class RMSNorm(nn.Module):
    """Root mean square layer normalisation (Zhang and Sennrich 2019), of DEIMv2.

    Divides features (..., D) by the root of their mean square, then scales each: ``x / sqrt(mean(x^2) + eps) * w``.
    Computed in single precision at least, where squares of float16 features do not overflow; the result is in the
    weight's type. Of operations that every exporter knows.
    """

    def __init__(self, embed_dims: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(embed_dims))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        x = as_float(x)
        normed = x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return (normed * as_float(self.weight)).to(self.weight.dtype)

    def extra_repr(self) -> str:
        return f'{self.weight.numel()}, eps={self.eps}'


NORMS: dict[str, type[nn.LayerNorm | RMSNorm]] = {'LN': nn.LayerNorm, 'RMS': RMSNorm}
"""Norms of tokens, by the names that a config gives them; each is built of the width D."""


class FusionGate(nn.Module):
    """Takes the place of add-and-norm: weighs what a query was against what it read (D-FINE, "target gating layer").

    ``norm(g * content + h * attended)``, the gates g and h being a sigmoid each of both, channel by channel; they start
    at one half. ``norm``: as in :class:`DeformableDecoderLayer`.
    """

    def __init__(self, embed_dims: int, norm: str = 'LN') -> None:
        super().__init__()
        self.gate = nn.Linear(2 * embed_dims, 2 * embed_dims)
        self.norm = NORMS[norm](embed_dims)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, content: Tensor, attended: Tensor) -> Tensor:
        """Both (B, Q, D) to (B, Q, D)."""
        gates = within_range(self.gate(torch.cat([content, attended], dim=-1))).sigmoid()
        keep, take = gates.chunk(2, dim=-1)
        return self.norm(within_range(keep * content + take * attended))


class DeformableDecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention, feed-forward network, each followed by a norm.

    Args:
        embed_dims, num_heads, feedforward_channels, dropout: the usual ones.
        num_levels, num_points, sampling, attention_backend: of
            :class:`~mmdet_iouquery.models.layers.DeformableAttention`.
        fusion: how what was read joins the query: 'add' and norm, or by 'gate' (:class:`FusionGate`), as D-FINE.
        act_cfg: activation of the feed-forward network; None: ReLU.
        ffn_init: its weights' first values: 'default' are PyTorch's, 'xavier' uniform (RT-DETRv2, D-FINE).
        project_values: False leaves out the cross-attention's projections of values and output, as D-FINE.
        norm: 'LN', layer norm, or 'RMS', :class:`~mmdet_iouquery.models.layers.RMSNorm` (DEIMv2), also of the gate.
        ffn: the feed-forward network: 'mlp', two linear layers, or 'swiglu' (DEIMv2),
            :class:`~mmdet_iouquery.models.layers.SwiGLU`, whose hidden features are half of ``feedforward_channels``
            and which has an activation and first values of its own.

    Raises:
        InputError: a value that cannot be, such as an odd ``feedforward_channels`` with 'swiglu'.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        num_levels: int,
        num_points: int | Sequence[int],
        dropout: float,
        attention_backend: str | None = None,
        *,
        fusion: Literal['add', 'gate'] = 'add',
        act_cfg: dict[str, Any] | None = None,
        ffn_init: Literal['default', 'xavier'] = 'default',
        sampling: Literal['bilinear', 'discrete'] = 'bilinear',
        project_values: bool = True,
        norm: Literal['LN', 'RMS'] = 'LN',
        ffn: Literal['mlp', 'swiglu'] = 'mlp',
    ) -> None:
        super().__init__()
        check_choice(['add', 'gate'], fusion=fusion)
        check_choice(['default', 'xavier'], ffn_init=ffn_init)
        check_choice([*NORMS], norm=norm)
        check_choice(['mlp', 'swiglu'], ffn=ffn)
        check_counts(feedforward_channels=feedforward_channels)
        check_numbers(most=1.0, dropout=dropout)
        check_flags(project_values=project_values)
        check_configs(act_cfg=act_cfg)
        if ffn == 'swiglu' and feedforward_channels % 2:
            raise InputError(
                f"feedforward_channels must be even with ffn='swiglu', which has half as many hidden features, got "
                f'{feedforward_channels}: name {feedforward_channels + 1}'
            )
        self.self_attn = SelfAttention(embed_dims, num_heads, dropout)
        self.norm1 = NORMS[norm](embed_dims)
        self.cross_attn = DeformableAttention(
            embed_dims,
            num_heads,
            num_levels,
            num_points,
            sampling=sampling,
            value_proj=project_values,
            output_proj=project_values,
            backend=attention_backend,
        )
        self.fusion = fusion
        if fusion == 'gate':
            self.gateway = FusionGate(embed_dims, norm)
        else:
            self.norm2 = NORMS[norm](embed_dims)
        self.ffn = ffn
        if ffn == 'swiglu':
            self.swiglu = SwiGLU(embed_dims, feedforward_channels // 2)
        else:
            self.linear1 = nn.Linear(embed_dims, feedforward_channels)
            self.linear2 = nn.Linear(feedforward_channels, embed_dims)
            if ffn_init == 'xavier':
                nn.init.xavier_uniform_(self.linear1.weight)
                nn.init.xavier_uniform_(self.linear2.weight)
            self.act = build_activation_layer(act_cfg or {'type': 'ReLU'})
        self.norm3 = NORMS[norm](embed_dims)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, content: Tensor, query_pos: Tensor, boxes: Tensor, memory: Memory, attention_mask: Tensor | None
    ) -> Tensor:
        """content and query_pos (B, Q, D), boxes (B, Q, 4) to (B, Q, D)."""
        attended = self.self_attn(content, query_pos, attention_mask)
        content = self.norm1(within_range(content + self.dropout(attended)))
        attended = self.dropout(self.cross_attn(content + query_pos, boxes, memory))
        if self.fusion == 'gate':
            content = self.gateway(content, attended)
        else:
            content = self.norm2(within_range(content + attended))
        return self.norm3(within_range(content + self.dropout(self._feed_forward(content))))

    def _feed_forward(self, content: Tensor) -> Tensor:
        if self.ffn == 'swiglu':
            return self.swiglu(content)
        return within_range(self.linear2(self.dropout(self.act(within_range(self.linear1(content))))))

"""The anchor-box decoder of DAB-DETR (Liu et al. 2022), over dense or deformable cross-attention."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn import build_activation_layer
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...argument_checks import (
    check_backend,
    check_choice,
    check_configs,
    check_counts,
    check_flags,
    check_heads,
    check_numbers,
)
from ...core import (
    FLOAT16_MAX,
    as_float,
    inverse_sigmoid,
    sine_anchor_encoding,
    sine_token_encoding,
    within_range,
)
from ...structures import Memory, Predictions, Queries
from ..layers import (
    MLP,
    ConcatenatedCrossAttention,
    DeformableAttention,
    DeformableDecoderLayer,
    SeparatedSelfAttention,
)
from .deformable import BoxDecoder, class_head

QUERY_SCALES = ('cond_elewise', 'cond_scalar', 'fix_elewise')
CROSS_ATTENTIONS = ('dense', 'deformable')
EPS = 1e-3
"""Sides and coordinates of anchors are held this far from 0 and 1 where logits are taken, as the authors do."""


class DABDecoderLayer(nn.Module):
    """Self-attention, concatenated cross-attention, feed-forward network, each followed by a layer norm (figure 6)."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        dropout: float,
        act_cfg: dict[str, Any],
        *,
        with_query_pos: bool,
    ) -> None:
        super().__init__()
        self.self_attn = SeparatedSelfAttention(embed_dims, num_heads, dropout)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.cross_attn = ConcatenatedCrossAttention(embed_dims, num_heads, dropout, with_query_pos=with_query_pos)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.act = build_activation_layer(act_cfg)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)
        self.norm3 = nn.LayerNorm(embed_dims)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        content: Tensor,
        query_pos: Tensor,
        query_sine: Tensor,
        memory: Memory,
        token_pos: Tensor,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """content, query_pos and query_sine (B, Q, D), token_pos (1 or B, N, D) to (B, Q, D)."""
        attended = self.self_attn(content, query_pos, attention_mask)
        content = self.norm1(within_range(content + self.dropout(attended)))
        attended = self.cross_attn(content, query_pos, query_sine, memory.tokens, token_pos, memory.padding)
        content = self.norm2(within_range(content + self.dropout(attended)))
        hidden = within_range(self.linear2(self.dropout(self.act(within_range(self.linear1(content))))))
        return self.norm3(within_range(content + self.dropout(hidden)))


@MODELS.register_module()
class DABDecoder(BoxDecoder):
    """Queries are boxes, refined layer by layer, whose position, width and height steer the attention (section 4).

    Of a layer's anchors ``(x, y, w, h)`` a sine code of width 2D is made; an MLP turns it into the position code
    (eq. 2, 3). Dense cross-attention compares the code of the centre with that of every token, apart from content
    (eq. 5); from the second layer on an MLP of the content scales it, and its x half is multiplied by ``w_ref / w``,
    its y half by ``h_ref / h``, where content predicts ``w_ref`` and ``h_ref`` (eq. 6). Deformable cross-attention
    reads points whose distance from the centre is a share of the box's size (as DAB-Deformable-DETR); there the scale
    multiplies the position code, and there is nothing to modulate.

    Anchors are detached between layers in training, while each predicted box is also a function of the one just before.
    Takes any selector's queries; the first layer's anchors come as the selector gives them.

    Args:
        num_classes: number of classes, C.
        embed_dims: width D, a multiple of 4.
        num_layers: number of layers, L.
        num_heads, feedforward_channels, dropout: of the layers.
        act_cfg: activation of the dense layers' feed-forward networks (deformable: ReLU).
        cross_attention: 'dense', over all tokens of one map or several; or 'deformable'.
        num_levels, num_points: maps in the memory, and sampling points a head and level, of 'deformable'.
        attention_backend: of 'deformable', see :class:`.deformable.DeformableDecoder`.
        query_scale: how the position's scale comes about: 'cond_elewise', D numbers from the content; 'cond_scalar',
            one; 'fix_elewise', D learned numbers a layer, from the first layer on.
        modulate_hw_attn: modulate dense attention by width and height.
        keep_query_pos: add the projected position code to content in every layer's cross-attention, not in the first
            alone.
        share_cls_head, share_bbox_head: one head for all layers, or one each.
        detach_anchors: False lets gradients run through all layers' anchors, for the ablation.
        temperature, memory_temperature: of the sine codes of anchors; and of tokens, where the memory brings no codes.
        with_cp: recompute the layers for their gradients, which takes less memory and more time.

    Raises:
        ValueError: an unknown ``cross_attention`` or ``query_scale``, an ``embed_dims`` that does not fit.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dims: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.0,
        act_cfg: dict[str, Any] | None = None,
        cross_attention: str = 'dense',
        num_levels: int = 1,
        num_points: int = 4,
        attention_backend: str | None = None,
        query_scale: str = 'cond_elewise',
        modulate_hw_attn: bool = True,
        keep_query_pos: bool = False,
        share_cls_head: bool = True,
        share_bbox_head: bool = True,
        detach_anchors: bool = True,
        temperature: float = 10000.0,
        memory_temperature: float = 20.0,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_choice(CROSS_ATTENTIONS, cross_attention=cross_attention)
        check_choice(QUERY_SCALES, query_scale=query_scale)
        check_counts(num_classes=num_classes, num_layers=num_layers, feedforward_channels=feedforward_channels)
        check_counts(embed_dims=embed_dims, num_levels=num_levels, num_points=num_points)
        check_numbers(most=1.0, dropout=dropout)
        check_numbers(least=1.0, temperature=temperature, memory_temperature=memory_temperature)
        check_flags(
            modulate_hw_attn=modulate_hw_attn,
            keep_query_pos=keep_query_pos,
            share_cls_head=share_cls_head,
            share_bbox_head=share_bbox_head,
            detach_anchors=detach_anchors,
            with_cp=with_cp,
        )
        check_backend(attention_backend)
        check_configs(act_cfg=act_cfg)
        if embed_dims % 4:
            raise ValueError(f'embed_dims must be a multiple of 4, for the sine codes, got {embed_dims}')
        check_heads(num_heads, embed_dims=embed_dims)
        self.embed_dims = embed_dims
        self.num_classes = num_classes
        self.dense = cross_attention == 'dense'
        self.num_levels = None if self.dense else num_levels
        self.detach_anchors = detach_anchors
        self.with_cp = with_cp
        self.temperature, self.memory_temperature = temperature, memory_temperature
        if self.dense:
            self.layers = nn.ModuleList(
                DABDecoderLayer(
                    embed_dims,
                    num_heads,
                    feedforward_channels,
                    dropout,
                    act_cfg or {'type': 'PReLU'},
                    with_query_pos=keep_query_pos or i == 0,
                )
                for i in range(num_layers)
            )
        else:
            self.layers = nn.ModuleList(
                DeformableDecoderLayer(
                    embed_dims, num_heads, feedforward_channels, num_levels, num_points, dropout, attention_backend
                )
                for _ in range(num_layers)
            )
        # the deformable kind has none, as its authors' code
        self.norm = nn.LayerNorm(embed_dims) if self.dense else nn.Identity()
        self.query_pos_head = MLP(2 * embed_dims, embed_dims, embed_dims, num_layers=2)
        self.query_scale: nn.Module = (
            nn.Embedding(num_layers, embed_dims)
            if query_scale == 'fix_elewise'
            else MLP(embed_dims, embed_dims, 1 if query_scale == 'cond_scalar' else embed_dims, num_layers=2)
        )
        self.ref_hw_head = MLP(embed_dims, embed_dims, 2, num_layers=2) if self.dense and modulate_hw_attn else None
        self._xavier()
        self.cls_heads = nn.ModuleList(
            class_head(embed_dims, num_classes) for _ in range(1 if share_cls_head else num_layers)
        )
        self.bbox_heads = nn.ModuleList(
            MLP(embed_dims, embed_dims, 4, num_layers=3, zero_output=True)
            for _ in range(1 if share_bbox_head else num_layers)
        )

    def _xavier(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        if not self.dense:
            for module in self.modules():
                if isinstance(module, DeformableAttention):
                    module.reset_parameters()

    def forward(
        self,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        """Decode; see :class:`~mmdet_iouquery.structures.Decoder`. Dense attention reads any number of levels."""
        depth, content, boxes = self.start(queries, memory, num_layers)
        token_pos = self._token_positions(memory) if self.dense else None
        logits_by_layer, boxes_by_layer = [], []
        for i, layer in enumerate(self.layers[:depth]):
            anchors = boxes.detach() if self.training and self.detach_anchors and i > 0 else boxes
            content = self._run_layer(layer, i, content, anchors, queries, memory, token_pos, attention_mask)
            if self.training or i == depth - 1:
                predicted = self.norm(content)
                logits_by_layer.append(within_range(self._head(self.cls_heads, i)(predicted)))
                delta = as_float(self._head(self.bbox_heads, i)(predicted))
                boxes_by_layer.append((delta + inverse_sigmoid(boxes, EPS)).sigmoid())
            if i < depth - 1:  # the next anchors come from the content before the norm, as the authors' do
                delta = as_float(self._head(self.bbox_heads, i)(content))
                boxes = (delta + inverse_sigmoid(anchors, EPS)).sigmoid()
        return Predictions(torch.stack(logits_by_layer), torch.stack(boxes_by_layer))

    def _run_layer(
        self,
        layer: nn.Module,
        index: int,
        content: Tensor,
        anchors: Tensor,
        queries: Queries,
        memory: Memory,
        token_pos: Tensor | None,
        attention_mask: Tensor | None,
    ) -> Tensor:
        """content (B, Q, D) and anchors (B, Q, 4) to (B, Q, D)."""
        sine = sine_anchor_encoding(anchors, self.embed_dims, temperature=self.temperature)
        query_pos = queries.position_codes(self.query_pos_head(sine.to(content.dtype)))
        scale = self._scale(index, content)
        if not self.dense:
            query_pos = query_pos * scale
            return self.run_layer(layer, content, query_pos, anchors, memory, attention_mask)
        query_sine = sine[..., : self.embed_dims] * scale
        if self.ref_hw_head is not None:
            ratio = as_float(self.ref_hw_head(content)).sigmoid() / anchors[..., 2:].clamp(min=1e-6)
            # w_ref / w for the x half, which stands second; h_ref / h for the y half
            halves = query_sine.unflatten(-1, (2, -1)) * ratio.flip(-1).unsqueeze(-1)
            query_sine = halves.flatten(-2)
            # a very thin anchor's ratio is beyond float16, to which autocast would bring it
            query_sine = query_sine.clamp(min=-FLOAT16_MAX, max=FLOAT16_MAX)
        query_sine = query_sine.to(content.dtype)
        return self.run_layer(layer, content, query_pos, query_sine, memory, token_pos, attention_mask)

    def _scale(self, index: int, content: Tensor) -> Tensor | float:
        if isinstance(self.query_scale, nn.Embedding):
            return self.query_scale.weight[index]
        return self.query_scale(content) if index > 0 else 1.0

    def _token_positions(self, memory: Memory) -> Tensor:
        if memory.position is not None:
            return memory.position
        return sine_token_encoding(
            memory.spatial_shapes,
            self.embed_dims,
            temperature=self.memory_temperature,
            extent=memory.extent,
            device=memory.tokens.device,
        ).to(memory.tokens.dtype)

    @staticmethod
    def _head(heads: nn.ModuleList, index: int) -> nn.Module:
        return heads[min(index, len(heads) - 1)]

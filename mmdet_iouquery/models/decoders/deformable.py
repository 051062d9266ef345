"""The deformable decoder of RT-DETR."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from ...core import inverse_sigmoid, multi_scale_deformable_attention
from ...structures import Memory, Predictions, Queries
from ..layers import MLP


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention around a box: each query reads a few points a head and level.

    A point's offset is a fraction of the box's size: ``offset / num_points * size / 2`` from its centre (Deformable
    DETR, appendix A.4).
    """

    def __init__(self, embed_dims: int, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims {embed_dims} must be divisible by num_heads {num_heads}')
        self.shape = (num_heads, num_levels, num_points)
        total = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dims, 2 * total)
        self.attention_weights = nn.Linear(embed_dims, total)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
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
        """query (B, Q, D) and boxes (B, Q, 4) to (B, Q, D)."""
        num_heads, num_levels, num_points = self.shape
        value = self.value_proj(memory.tokens)
        if memory.padding is not None:
            value = value.masked_fill(memory.padding.unsqueeze(-1), 0.0)
        offsets = self.sampling_offsets(query).unflatten(-1, (*self.shape, 2))
        weights = self.attention_weights(query).unflatten(-1, (num_heads, num_levels * num_points)).softmax(-1)
        centre, size = boxes[:, :, None, None, None].split(2, dim=-1)
        locations = centre + offsets * (0.5 / num_points) * size
        attended = multi_scale_deformable_attention(
            value.unflatten(-1, (num_heads, -1)),
            memory.spatial_shapes,
            locations,
            weights.unflatten(-1, (num_levels, num_points)),
        )
        return self.output_proj(attended)


class DeformableDecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention, feed-forward network, each followed by a layer norm."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        num_levels: int,
        num_points: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(embed_dims, num_heads, dropout=dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.cross_attn = DeformableAttention(embed_dims, num_heads, num_levels, num_points)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)
        self.norm3 = nn.LayerNorm(embed_dims)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, content: Tensor, query_pos: Tensor, boxes: Tensor, memory: Memory, attention_mask: Tensor | None
    ) -> Tensor:
        """content and query_pos (B, Q, D), boxes (B, Q, 4) to (B, Q, D)."""
        query = content + query_pos
        attended = self.self_attn(query, query, value=content, attn_mask=attention_mask, need_weights=False)[0]
        content = self.norm1(content + self.dropout(attended))
        content = self.norm2(content + self.dropout(self.cross_attn(content + query_pos, boxes, memory)))
        hidden = self.linear2(self.dropout(F.relu(self.linear1(content))))
        # the sum must stay inside half precision's range
        return self.norm3((content + self.dropout(hidden)).clamp(min=-65504, max=65504))


@MODELS.register_module()
class DeformableDecoder(BaseModule):
    """Refine queries layer by layer, each layer's box being the next one's anchor (RT-DETR; DINO, section 3.5).

    Owns the class and box heads of every layer. A layer's position code comes from its anchors by an MLP. Anchors are
    detached between layers in training, while each predicted box is also a function of the one just before it ("look
    forward twice").

    Args:
        num_classes: C.
        embed_dims: width D.
        num_layers: L.
        num_heads, feedforward_channels, dropout: of the layers.
        num_levels: maps in the memory.
        num_points: sampling points a head and level.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dims: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        num_levels: int = 3,
        num_points: int = 4,
        dropout: float = 0.0,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_classes = num_classes
        self.num_levels = num_levels
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(embed_dims, num_heads, feedforward_channels, num_levels, num_points, dropout)
            for _ in range(num_layers)
        )
        self.query_pos_head = MLP(4, 2 * embed_dims, embed_dims, num_layers=2)
        for name, parameter in self.query_pos_head.named_parameters():
            if name.endswith('weight'):
                nn.init.xavier_uniform_(parameter)
        self.cls_heads = nn.ModuleList(_class_head(embed_dims, num_classes) for _ in range(num_layers))
        self.bbox_heads = nn.ModuleList(
            MLP(embed_dims, embed_dims, 4, num_layers=3, zero_output=True) for _ in range(num_layers)
        )

    def forward(
        self,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        """Decode.

        Args:
            attention_mask: (Q, Q) bool, True = may not attend.
            num_layers: how many layers to run, from the first; negative: counted back from the last (-1: all); None:
                all.

        Returns:
            In training every layer's predictions, in prediction those of the last layer run (L = 1).

        Raises:
            ValueError: there are not so many layers, or the memory has another number of levels.
        """
        if len(memory.spatial_shapes) != self.num_levels:
            raise ValueError(
                f'the decoder was built for {self.num_levels} levels, the memory has {memory.spatial_shapes}'
            )
        depth = resolve_depth(num_layers, len(self.layers))
        content, boxes = queries.content, queries.anchors_unact.sigmoid()
        logits_by_layer, boxes_by_layer = [], []
        for i, layer in enumerate(self.layers[:depth]):
            anchors = boxes.detach() if self.training else boxes
            content = layer(content, self.query_pos_head(anchors), anchors, memory, attention_mask)
            delta = self.bbox_heads[i](content)
            if self.training or i == depth - 1:
                logits_by_layer.append(self.cls_heads[i](content))
                boxes_by_layer.append((delta + inverse_sigmoid(boxes)).sigmoid())
            # the same value, but a gradient reaches no further back than this layer
            boxes = (delta + inverse_sigmoid(anchors)).sigmoid()
        return Predictions(torch.stack(logits_by_layer), torch.stack(boxes_by_layer))


def _class_head(embed_dims: int, num_classes: int) -> nn.Linear:
    """Logits that start at a probability of 0.01."""
    head = nn.Linear(embed_dims, num_classes)
    nn.init.constant_(head.bias, bias_init_with_prob(0.01))
    return head


def resolve_depth(num_layers: int | None, available: int) -> int:
    """Number of layers to run, of ``available``: None and -1 all of them, -2 all but the last, and so on.

    Raises:
        ValueError: outside 1..available.
    """
    if num_layers is None:
        return available
    depth = num_layers if num_layers > 0 else available + 1 + num_layers
    if not 0 < depth <= available or num_layers == 0:
        raise ValueError(f'num_decoder_layers={num_layers}, but the decoder has {available} layers: 1..{available}')
    return depth

"""The deformable decoder of RT-DETR, and what it shares with other decoders that refine boxes layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...argument_checks import check_counts, check_flags
from ...core import as_float, inverse_sigmoid, within_range
from ...structures import Memory, Predictions, Queries
from ..layers import MLP, BoxPositionMLP, DeformableDecoderLayer


def class_head(embed_dims: int, num_classes: int) -> nn.Linear:
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
    if not 0 < depth <= available:
        raise ValueError(
            f'num_decoder_layers must lie in [1, {available}], as the decoder has {available} layers, got {num_layers}'
        )
    return depth


class BoxDecoder(BaseModule):
    """What decoders have in common whose queries are boxes, refined by one layer after the other."""

    layers: nn.ModuleList
    num_levels: int | None
    """Maps that the layers read; None: any number."""
    with_cp: bool
    refines_distributions = False
    """Whether predictions carry a refinement in training; of another decoder a criterion asks for the same name."""

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.layers)

    def start(self, queries: Queries, memory: Memory, num_layers: int | None) -> tuple[int, Tensor, Tensor]:
        """How many layers to run, and the content (B, S, D) and boxes (B, S, 4) that the first of them takes."""
        if self.num_levels not in (None, len(memory.spatial_shapes)):
            raise ValueError(
                f'the decoder was built for {self.num_levels} levels, the memory has {memory.spatial_shapes}; set '
                'num_levels to the number of maps of the neck'
            )
        depth = resolve_depth(num_layers, self.num_layers)
        return depth, queries.content, as_float(queries.anchors_unact).sigmoid()

    def run_layer(self, layer: nn.Module, *inputs: Any) -> Tensor:
        """The layer's content (B, S, D)."""
        if self.with_cp and layer.training and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


@MODELS.register_module()
class DeformableDecoder(BoxDecoder):
    """Refine queries layer by layer, each layer's box being the next one's anchor (RT-DETR; DINO, section 3.5).

    Owns the class and box heads of every layer. A layer's position code comes from its anchors by an MLP. Anchors are
    detached between layers in training, while each predicted box is also a function of the one just before it ("look
    forward twice").

    Args:
        num_classes: number of classes, C.
        embed_dims: width D.
        num_layers: number of layers, L.
        num_heads, feedforward_channels, dropout: of the layers.
        num_levels: maps in the memory.
        num_points: sampling points a head and level: one number for all levels, or one for each, finest first.
        sampling: of deformable attention: 'bilinear', or 'discrete' (RT-DETRv2).
        act_cfg: activation of the feed-forward networks and box heads; None: ReLU.
        ffn_init: first values of the feed-forward networks: 'default' are PyTorch's, 'xavier' uniform (RT-DETRv2).
        norm, ffn: of the layers: norms 'LN' or 'RMS', feed-forward networks 'mlp' or 'swiglu', see
            :class:`~mmdet_iouquery.models.layers.DeformableDecoderLayer`.
        query_pos: arguments of :class:`~mmdet_iouquery.models.layers.BoxPositionMLP`, which makes the position codes:
            ``hidden_dims``, ``num_layers``, ``act_cfg``, ``clamp``, ``num_xavier``; None: as RT-DETR.
        attention_backend: of deformable attention: 'triton' or 'mmcv' on CUDA devices, 'embedding_bag', 'gather' or
            'grid_sample' on any; None: the fastest that runs. They differ in speed alone.
        with_cp: recompute the layers for their gradients, which takes less memory and more time.
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
        num_points: int | Sequence[int] = 4,
        dropout: float = 0.0,
        sampling: Literal['bilinear', 'discrete'] = 'bilinear',
        act_cfg: dict[str, Any] | None = None,
        ffn_init: Literal['default', 'xavier'] = 'default',
        norm: Literal['LN', 'RMS'] = 'LN',
        ffn: Literal['mlp', 'swiglu'] = 'mlp',
        query_pos: dict[str, Any] | None = None,
        attention_backend: str | None = None,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(num_classes=num_classes, num_layers=num_layers)
        check_flags(with_cp=with_cp)
        self.num_levels = num_levels
        self.with_cp = with_cp
        self.num_classes = num_classes
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(
                embed_dims,
                num_heads,
                feedforward_channels,
                num_levels,
                num_points,
                dropout,
                attention_backend,
                act_cfg=act_cfg,
                ffn_init=ffn_init,
                sampling=sampling,
                norm=norm,
                ffn=ffn,
            )
            for _ in range(num_layers)
        )
        self.query_pos_head = BoxPositionMLP.from_cfg(embed_dims, query_pos)
        self.cls_heads = nn.ModuleList(class_head(embed_dims, num_classes) for _ in range(num_layers))
        self.bbox_heads = nn.ModuleList(
            MLP(embed_dims, embed_dims, 4, num_layers=3, zero_output=True, act_cfg=act_cfg) for _ in range(num_layers)
        )

    def forward(
        self,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        """Decode; see :class:`~mmdet_iouquery.structures.Decoder`."""
        depth, content, boxes = self.start(queries, memory, num_layers)
        logits_by_layer, boxes_by_layer = [], []
        for i, layer in enumerate(self.layers[:depth]):
            # the first anchors come as the selector gives them: the encoder's detached, learned ones to be trained
            anchors = boxes.detach() if self.training and i > 0 else boxes
            query_pos = queries.position_codes(self.query_pos_head(anchors.to(content.dtype)))
            content = self.run_layer(layer, content, query_pos, anchors, memory, attention_mask)
            delta = as_float(self.bbox_heads[i](content))
            if self.training or i == depth - 1:
                logits_by_layer.append(within_range(self.cls_heads[i](content)))
                boxes_by_layer.append((delta + inverse_sigmoid(boxes)).sigmoid())
            # the same value, but a gradient reaches no further back than this layer
            boxes = (delta + inverse_sigmoid(anchors)).sigmoid()
        return Predictions(torch.stack(logits_by_layer), torch.stack(boxes_by_layer))

"""The decoder of D-FINE, which refines distributions of each box's edges (Peng et al. 2024, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...argument_checks import check_choice, check_configs, check_counts, check_flags, check_numbers
from ...core import (
    TableCache,
    as_float,
    bin_values,
    distances_to_boxes,
    expected_distances,
    inverse_sigmoid,
    within_range,
)
from ...errors import InputError
from ...structures import Memory, Predictions, Queries, Refinement
from ..layers import MLP, BoxPositionMLP, DeformableDecoderLayer
from .deformable import BoxDecoder, class_head

NUM_PEAKS = 4
"""Largest probabilities of an edge that tell how sure it is (D-FINE's code)."""


class QualityHead(MLP):
    """What a class score gains where the edges of its box are predicted with certainty (D-FINE's code, after GFLv2).

    Each edge is judged by its four largest probabilities and their mean. Starts at zero.
    """

    def __init__(self, hidden_dims: int = 64, act_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(4 * (NUM_PEAKS + 1), hidden_dims, 1, num_layers=2, zero_output=True, act_cfg=act_cfg)

    def forward(self, corners: Tensor) -> Tensor:
        """Logits (B, Q, 4, R + 1) of the edges' distributions to (B, Q, 1)."""
        peaks = corners.softmax(-1).topk(NUM_PEAKS, dim=-1).values
        judged = torch.cat([peaks, peaks.mean(-1, keepdim=True)], dim=-1).flatten(-2)
        return super().forward(judged.to(next(self.parameters()).dtype))


@MODELS.register_module()
class DistributionDecoder(BoxDecoder):
    """Fine-grained distribution refinement: boxes are means of distributions that every layer refines.

    The first layer predicts an initial box as RT-DETR's does. How far each of its edges lies from the true one is a
    distribution over R + 1 distances, dense around 0; each layer adds to the logits of these distributions, and its box
    is the initial one with the edges moved by their means. Class scores rise with the certainty of the edges. Layers
    have D-FINE's form: a gate after cross-attention, which reads the memory itself without projections.

    In prediction a box whose edges have passed each other has no width, or no height, whoever reads it.

    In training the predictions carry a :class:`~mmdet_iouquery.structures.Refinement`. Gradients of a layer's losses
    reach all box heads before it, but neither the initial box, nor, through what a layer adds to its features, those of
    the layer before.

    The state dict holds ``up`` and ``reg_scale``: weights trained with other values do not load.

    Args:
        num_classes: number of classes, C.
        embed_dims: width D.
        num_layers: number of layers, L.
        num_heads, feedforward_channels, dropout: of the layers.
        num_levels: maps in the memory.
        num_points: sampling points a head and level: one number for all levels, or one for each, finest first.
        reg_max: R, even: an edge has R + 1 bins.
        reg_scale: how many units of distance an initial box is wide and high; larger: finer bins (8 in D-FINE-X).
        up: the outermost but one bins are this part of the box away.
        sampling: of deformable attention: 'bilinear' or 'discrete'.
        fusion: how what was read joins the query: by 'gate', or 'add' and norm.
        norm, ffn: of the layers, as in :class:`DeformableDecoder`.
        ffn_init: first values of a feed-forward network 'mlp': 'xavier' uniform, or 'default', PyTorch's (ECDet).
        act_cfg: activation of feed-forward networks, box, quality and position heads; None: ReLU (SiLU in DEIM).
        query_pos: arguments of :class:`~mmdet_iouquery.models.layers.BoxPositionMLP`, by default with ``clamp=10``.
        position_code: made of the boxes that each layer starts from ('per_layer'), or 'once', of the first layer's
            (DEIMv2).
        share_bbox_head: one head of distributions for all layers (DEIMv2's smallest), in place of one each.
        attention_backend, with_cp: as in :class:`DeformableDecoder`.

    Raises:
        ValueError: numbers out of range, points that do not fit the levels, or an odd ``reg_max``.
    """

    refines_distributions = True

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
        reg_max: int = 32,
        reg_scale: float = 4.0,
        up: float = 0.5,
        sampling: Literal['bilinear', 'discrete'] = 'bilinear',
        fusion: Literal['gate', 'add'] = 'gate',
        norm: Literal['LN', 'RMS'] = 'LN',
        ffn: Literal['mlp', 'swiglu'] = 'mlp',
        ffn_init: Literal['default', 'xavier'] = 'xavier',
        act_cfg: dict[str, Any] | None = None,
        query_pos: dict[str, Any] | None = None,
        position_code: Literal['per_layer', 'once'] = 'per_layer',
        share_bbox_head: bool = False,
        attention_backend: str | None = None,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(num_classes=num_classes, num_layers=num_layers)
        _check_bins(reg_max, reg_scale, up)
        check_configs(query_pos=query_pos)
        check_choice(['per_layer', 'once'], position_code=position_code)
        check_flags(share_bbox_head=share_bbox_head, with_cp=with_cp)
        self.num_levels, self.with_cp = num_levels, with_cp
        self.num_classes = num_classes
        self.position_code = position_code
        self.bins = (reg_max, float(reg_scale), float(up))
        self._tables = TableCache()
        self.layers = nn.ModuleList(
            DeformableDecoderLayer(
                embed_dims,
                num_heads,
                feedforward_channels,
                num_levels,
                num_points,
                dropout,
                attention_backend,
                fusion=fusion,
                act_cfg=act_cfg,
                ffn_init=ffn_init,
                sampling=sampling,
                project_values=False,
                norm=norm,
                ffn=ffn,
            )
            for _ in range(num_layers)
        )
        self.query_pos_head = BoxPositionMLP.from_cfg(
            embed_dims, {'clamp': 10.0, 'act_cfg': act_cfg, **(query_pos or {})}
        )
        self.cls_heads = nn.ModuleList(class_head(embed_dims, num_classes) for _ in range(num_layers))
        self.initial_bbox_head = self._box_head(embed_dims, 4, act_cfg)
        self.bbox_heads = nn.ModuleList(
            self._box_head(embed_dims, 4 * (reg_max + 1), act_cfg) for _ in range(1 if share_bbox_head else num_layers)
        )
        self.quality_heads = nn.ModuleList(QualityHead(act_cfg=act_cfg) for _ in range(num_layers))
        self.register_buffer('up', torch.tensor([float(up)]))
        self.register_buffer('reg_scale', torch.tensor([float(reg_scale)]))

    @staticmethod
    def _box_head(embed_dims: int, out_dims: int, act_cfg: dict[str, Any] | None) -> MLP:
        return MLP(embed_dims, embed_dims, out_dims, num_layers=3, zero_output=True, act_cfg=act_cfg)

    def forward(
        self,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        """Decode; see :class:`~mmdet_iouquery.structures.Decoder`."""
        depth, content, boxes = self.start(queries, memory, num_layers)
        _, reg_scale, _ = self.bins
        values = self._bin_values(content.device)
        logits_by_layer: list[Tensor] = []
        boxes_by_layer: list[Tensor] = []
        corners_by_layer: list[Tensor] = []
        added: Tensor | float = 0.0
        for i, layer in enumerate(self.layers[:depth]):
            if i == 0 or self.position_code == 'per_layer':
                query_pos = queries.position_codes(self.query_pos_head(boxes.to(content.dtype)))
            content = self.run_layer(layer, content, query_pos, boxes, memory, attention_mask)
            corners = self._corners(i, content + added)
            if i == 0:
                initial_boxes = (as_float(self.initial_bbox_head(content)) + inverse_sigmoid(boxes)).sigmoid()
                initial_logits = within_range(self.cls_heads[0](content))
                references = initial_boxes.detach()
            else:
                corners = corners + corners_by_layer[-1]
            corners_by_layer.append(corners)
            boxes = distances_to_boxes(references, expected_distances(corners, values), reg_scale)
            if self.training or i == depth - 1:
                logits = within_range(self.cls_heads[i](content)) if i else initial_logits
                logits_by_layer.append(logits + self.quality_heads[i](corners))
                boxes_by_layer.append(boxes)
            boxes, added = boxes.detach(), content.detach()
        if not self.training:
            return Predictions(logits_by_layer[-1][None], _right_side_out(boxes_by_layer[-1])[None])
        predictions = Predictions(torch.stack(logits_by_layer), torch.stack(boxes_by_layer))
        stacked = torch.stack(corners_by_layer)
        refinement = Refinement(stacked, initial_logits[None], initial_boxes[None], values, reg_scale)
        return predictions._replace(refinement=refinement)

    def _corners(self, layer: int, features: Tensor) -> Tensor:
        """What a layer adds to the logits (B, Q, 4, R + 1), of features (B, Q, D)."""
        head = self.bbox_heads[min(layer, len(self.bbox_heads) - 1)]
        return as_float(head(features)).unflatten(-1, (4, -1))

    def _bin_values(self, device: torch.device) -> Tensor:
        return self._tables(device, lambda: bin_values(*self.bins, device=device))

    def check_constants(self, state_dict: Mapping[str, Any], prefix: str = '') -> None:
        """Raise :class:`InputError` where weights were trained with another ``up`` or ``reg_scale``.

        Args:
            state_dict: holds those of this decoder, each under ``prefix`` and its name.
        """
        for name in ('up', 'reg_scale'):
            trained, own = state_dict.get(prefix + name), getattr(self, name)
            if isinstance(trained, Tensor) and trained.numel() == 1 and trained.to(own).item() != own.item():
                raise InputError(
                    f'the weights were trained with {name}={trained.item():g} and this decoder has '
                    f'{name}={own.item():g}, which would move every edge; set {name}={trained.item():g} in the decoder '
                    f'of the config (model.bbox_head.decoder.{name}={trained.item():g} in RT-DETR and D-FINE)'
                )

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        self.check_constants(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *others)


def _right_side_out(boxes: Tensor) -> Tensor:
    """The same boxes (..., 4), negative sizes as 0."""
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre, size.clamp(min=0)], dim=-1)


def _check_bins(reg_max: int, reg_scale: float, up: float) -> None:
    """Raise :class:`InputError` unless there are bins of these numbers."""
    check_counts(least=4, reg_max=reg_max)
    if reg_max % 2:
        raise InputError(
            f'reg_max must be even, so that one of its bins is a distance of 0, got {reg_max}: name {reg_max - 1} or '
            f'{reg_max + 1}; D-FINE has 32'
        )
    check_numbers(reg_scale=reg_scale, up=up)
    if not reg_scale or not up:
        raise InputError(f'reg_scale and up must be above 0, got {reg_scale} and {up}; D-FINE has 4 (X: 8) and 0.5')

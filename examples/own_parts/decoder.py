"""A decoder whose layers move boxes in units of their size, as R-CNN does."""

from __future__ import annotations

import math

import torch
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_iouquery.core import as_float
from mmdet_iouquery.models.decoders import DeformableDecoder
from mmdet_iouquery.structures import Memory, Predictions, Queries

MOST_GROWTH = math.log(4.0)


def moved(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Boxes (..., 4), cx, cy, w, h, by deltas (..., 4) in units of their size (Girshick et al. 2014, appendix C)."""
    (centre, size), (shift, growth) = boxes.split(2, dim=-1), deltas.split(2, dim=-1)
    grown = size * growth.clamp(max=MOST_GROWTH).exp()
    return torch.cat([centre + shift * size, grown], dim=-1).clamp(0.0, 1.0)


@MODELS.register_module()
class RelativeDecoder(DeformableDecoder):
    """RT-DETR's layers and heads; an equal delta changes the IoU of a box of 10 px and of one of 300 px alike.

    RT-DETR adds deltas to the logits of a box, which moves the centres of small and of large boxes equally far.
    """

    def forward(
        self,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        depth, content, boxes = self.start(queries, memory, num_layers)
        logits_by_layer, boxes_by_layer = [], []
        for i, layer in enumerate(self.layers[:depth]):
            query_pos = queries.position_codes(self.query_pos_head(boxes.to(content.dtype)))
            content = self.run_layer(layer, content, query_pos, boxes, memory, attention_mask)
            boxes = moved(boxes, as_float(self.bbox_heads[i](content)))
            if self.training or i == depth - 1:
                logits_by_layer.append(self.cls_heads[i](content))
                boxes_by_layer.append(boxes)
            boxes = boxes.detach()  # a layer learns by its own step alone
        return Predictions(torch.stack(logits_by_layer), torch.stack(boxes_by_layer))

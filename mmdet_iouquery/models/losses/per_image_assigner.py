"""An assigner of mmdet's as the criterion calls one."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import InstanceData

from ...core import box_cxcywh_to_xyxy
from ...structures import Pairs, Predictions, Targets


class PerImageAssigner:
    """An assigner of mmdet's, called for each layer and image in turn.

    Args:
        assigner: anything with mmdet's ``assign(pred_instances, gt_instances, img_meta)``. Boxes are given to it
            normalised, with an image of 1 x 1 pixels, where costs of pixels and of fractions are the same.
    """

    def __init__(self, assigner: Any) -> None:
        self.assigner = assigner

    @torch.no_grad()
    def __call__(self, predictions: Predictions, targets: Targets) -> Pairs:
        """Match ``predictions`` (L, B, Q, ...) with ``targets``."""
        labels, boxes_xyxy = (
            targets.labels.split(targets.counts),
            box_cxcywh_to_xyxy(targets.boxes).split(targets.counts),
        )
        columns: list[list[torch.Tensor]] = []
        for layer, (logits, boxes) in enumerate(zip(*predictions)):
            start = 0
            for image, count in enumerate(targets.counts):
                scores, boxes_of_image = _or_far_off(logits[image], -1e4), _or_far_off(boxes[image], 1e4)
                given = InstanceData(scores=scores, bboxes=box_cxcywh_to_xyxy(boxes_of_image))
                truth = InstanceData(labels=labels[image], bboxes=boxes_xyxy[image])
                assigned = self.assigner.assign(given, truth, img_meta={'img_shape': (1, 1)}).gt_inds
                query = torch.nonzero(assigned > 0).squeeze(1)
                position = torch.full_like(query, layer), torch.full_like(query, image)
                columns.append([*position, query, start + assigned[query] - 1])
                start += count
        return Pairs(*(torch.cat(parts) for parts in zip(*columns)))


def _or_far_off(x: torch.Tensor, value: float) -> torch.Tensor:
    """``x`` (Q, ...) with ``value`` in every row that is not finite, so that no such cost reaches the solver."""
    return torch.where(x.isfinite().all(-1, keepdim=True), x, value)

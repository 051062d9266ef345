"""Assigners: which prediction answers for which ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import nn

from ...argument_checks import check_numbers
from ...core import MatchCosts, QualityCost, box_cxcywh_to_xyxy, hungarian_pairs
from ...errors import InputError
from ...structures import Assigner, Pairs, Predictions, Targets


@TASK_UTILS.register_module()
class BatchedHungarianAssigner:
    """One-to-one matching of every layer and image at once, with RT-DETR's costs by default.

    Args:
        class_weight, bbox_weight, giou_weight: weights of the focal class cost, of the L1 distance of normalised
            ``cx, cy, w, h`` and of the negative GIoU.
        alpha, gamma: of the focal class cost.
        quality_cost: ``dict(iou_power=4)``: less the class' probability times that power of the IoU takes the place of
            these costs from where ``MatchingCostHook`` says so (DEIMv2); None: they stay.
    """

    by_quality = False
    """Whether ``quality_cost`` is what counts now; set by ``MatchingCostHook``."""

    def __init__(self, *, quality_cost: Mapping[str, float] | None = None, **costs: float) -> None:
        self.costs = MatchCosts(**costs)
        check_numbers(**costs)
        check_numbers(most=1.0, alpha=self.costs.alpha)
        if quality_cost is not None and not (isinstance(quality_cost, Mapping) and set(quality_cost) <= {'iou_power'}):
            raise InputError(f'quality_cost must be dict(iou_power=...), or None, got {quality_cost!r}')
        self.quality_cost = None if quality_cost is None else QualityCost(**quality_cost)
        check_numbers(**(quality_cost or {}))

    @torch.no_grad()
    def __call__(self, predictions: Predictions, targets: Targets) -> Pairs:
        """Match ``predictions`` (L, B, Q, ...) with ``targets``: L * sum(min(count, Q)) pairs, sorted by layer."""
        costs = self.quality_cost if self.by_quality and self.quality_cost is not None else self.costs
        cost = costs(predictions.logits, predictions.boxes, targets.labels, targets.boxes, targets.image)
        layer, query, truth = hungarian_pairs(cost, targets.counts)
        return Pairs(layer, targets.image_on_host[truth], query, truth)


def with_quality_cost(model: nn.Module) -> Iterator[BatchedHungarianAssigner]:
    """The assigners in a model, wrapped or not, that have a ``quality_cost``."""
    for module in model.modules():
        assigner = getattr(module, 'assigner', None)
        if isinstance(assigner, BatchedHungarianAssigner) and assigner.quality_cost is not None:
            yield assigner


class PerImageAssigner:
    """An assigner of mmdet's, called for each layer and image in turn.

    Args:
        assigner: anything with mmdet's ``assign(pred_instances, gt_instances, img_meta)``. Boxes are given to it
            normalised, with an image of 1 x 1 pixels, where costs of pixels and of fractions are the same.
    """

    def __init__(self, assigner: Any) -> None:
        self.assigner = assigner

    @classmethod
    def of(cls, assigner: Any) -> Assigner:
        """An :class:`~mmdet_iouquery.structures.Assigner`, which can be called, as it is; one of mmdet's so wrapped."""
        return assigner if callable(assigner) else cls(assigner)

    @torch.no_grad()
    def __call__(self, predictions: Predictions, targets: Targets) -> Pairs:
        """Match ``predictions`` (L, B, Q, ...) with ``targets``."""
        labels, boxes_xyxy = (
            targets.labels.split(targets.counts),
            box_cxcywh_to_xyxy(targets.boxes).split(targets.counts),
        )
        columns: list[list[torch.Tensor]] = []
        for layer, (logits, boxes) in enumerate(zip(predictions.logits, predictions.boxes)):
            start = 0
            for image, count in enumerate(targets.counts):
                scores, boxes_of_image = _or_far_off(logits[image], -1e4), _or_far_off(boxes[image], 1e4)
                given = InstanceData(scores=scores, bboxes=box_cxcywh_to_xyxy(boxes_of_image))
                truth = InstanceData(labels=labels[image], bboxes=boxes_xyxy[image])
                assigned = self.assigner.assign(given, truth, img_meta={'img_shape': (1, 1)}).gt_inds.cpu()
                query = torch.nonzero(assigned > 0).squeeze(1)
                position = torch.full_like(query, layer), torch.full_like(query, image)
                columns.append([*position, query, start + assigned[query] - 1])
                start += count
        return Pairs(*(torch.cat(parts) for parts in zip(*columns)))


def _or_far_off(x: torch.Tensor, value: float) -> torch.Tensor:
    """``x`` (Q, ...) with ``value`` in every row that is not finite, so that no such cost reaches the solver."""
    return torch.where(x.isfinite().all(-1, keepdim=True), x, value)

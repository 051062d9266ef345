"""One-to-one matching of predictions with ground truth (DETR, section 3.1), all layers and images in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .boxes import box_cxcywh_to_xyxy, box_iou_elementwise, generalized_box_iou_elementwise


@dataclass(frozen=True)
class MatchCosts:
    """Weights of the three costs, and the focal form of the class cost. The defaults are RT-DETR's."""

    class_weight: float = 2.0
    bbox_weight: float = 5.0
    giou_weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0

    def class_cost(self, logits: Tensor) -> Tensor:
        """Focal loss of calling the box positive less that of calling it negative, elementwise."""
        p = logits.sigmoid()
        positive = self.alpha * (1 - p) ** self.gamma * -(p + 1e-8).log()
        negative = (1 - self.alpha) * p**self.gamma * -(1 - p + 1e-8).log()
        return positive - negative

    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, gt_boxes: Tensor, image: Tensor) -> Tensor:
        """Cost of every prediction for every ground-truth box of its own image.

        Args:
            logits: (L, B, Q, C). boxes: (L, B, Q, 4).
            labels: (T,) int64. gt_boxes: (T, 4). image: (T,) int64, the image of each ground-truth box.

        Returns:
            (L, T, Q), float32.
        """
        labelled, candidates, truth = _by_truth(logits, boxes, labels, gt_boxes, image)
        l1 = (candidates - truth).abs().sum(-1)
        giou = generalized_box_iou_elementwise(box_cxcywh_to_xyxy(candidates), box_cxcywh_to_xyxy(truth))
        return self.class_weight * self.class_cost(labelled) + self.bbox_weight * l1 - self.giou_weight * giou


@dataclass(frozen=True)
class QualityCost:
    """Less the probability of the box's class times a power of the IoU, by which DEIMv2 matches late in its training.

    Nothing but what prediction is measured by: boxes that do not overlap cost 0, wherever they are.
    """

    iou_power: float = 4.0

    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, gt_boxes: Tensor, image: Tensor) -> Tensor:
        """Cost in [-1, 0] of every prediction for every ground-truth box, as :class:`MatchCosts` has them."""
        labelled, candidates, truth = _by_truth(logits, boxes, labels, gt_boxes, image)
        iou = box_iou_elementwise(box_cxcywh_to_xyxy(candidates), box_cxcywh_to_xyxy(truth))
        return -labelled.sigmoid() * iou**self.iou_power


def _by_truth(
    logits: Tensor, boxes: Tensor, labels: Tensor, gt_boxes: Tensor, image: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (L, T, Q) of each box's own class, boxes (L, T, Q, 4) of its image, and the box (1, T, 1, 4); float32."""
    labelled = logits[:, image, :, labels].transpose(0, 1).float()
    return labelled, boxes[:, image].float(), gt_boxes.float()[None, :, None]


@torch.no_grad()
def hungarian_pairs(cost: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Cheapest one-to-one assignment of each layer and image, solved by SciPy.

    The costs cross to the host once, whatever the number of layers and images. A cost that is NaN or infinite counts
    as the worst there is, so that one broken prediction can't stop the solver.

    Args:
        cost: (L, T, Q), the boxes of image 0 first, then those of image 1, and so on.
        counts: number of ground-truth boxes of each image; their sum is T.

    Returns:
        layer, query and ground-truth index, each (M,) int64 on the host, M = L * sum(min(count, Q)), sorted by layer,
        then by ground truth.
    """
    table = np.nan_to_num(cost.detach().cpu().numpy(), nan=1e6, posinf=1e6, neginf=1e6)
    starts = np.cumsum([0, *counts])
    layers, queries, truths = [], [], []
    for layer, rows in enumerate(table):
        for start, end in zip(starts[:-1], starts[1:]):
            truth, query = linear_sum_assignment(rows[start:end])
            layers.append(np.full(len(truth), layer))
            queries.append(query)
            truths.append(truth + start)

    def join(parts: Sequence[NDArray[Any]]) -> Tensor:
        return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64))

    return join(layers), join(queries), join(truths)


def union_pairs(image: Tensor, query: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One set of pairs from the matchings of several layers: each query's most frequent ground truth (D-FINE's code).

    Of equally frequent ones a query gets the first. A ground truth may get several queries.

    Args:
        image, query, truth: (M,) int64 on the host, the pairs of all matchings; queries count from 0 in each image,
            ground truth does not.

    Returns:
        image, query and truth, (M',) int64, sorted by image and query.
    """
    pairs, votes = torch.unique(torch.stack([image, query, truth]), dim=1, return_counts=True)
    by_image, by_query, by_truth = pairs.numpy()
    order = np.lexsort((by_truth, -votes.numpy(), by_query, by_image))
    by_image, by_query, by_truth = by_image[order], by_query[order], by_truth[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(by_image) != 0) | (np.diff(by_query) != 0)
    image, query, truth = (torch.from_numpy(column[first]) for column in (by_image, by_query, by_truth))
    return image, query, truth

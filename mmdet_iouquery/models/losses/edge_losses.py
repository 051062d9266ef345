"""D-FINE's losses of edge distributions (Peng et al. 2024, sections 4.1 and 4.2), each once for all layers.

Letters as in :mod:`mmdet_iouquery.core` and :mod:`.blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...argument_checks import check_numbers
from ...core import (
    EdgeTargets,
    balance,
    balanced_mean,
    box_cxcywh_to_xyxy,
    box_iou_elementwise,
    distillation_divergence,
    edge_cross_entropy,
    edge_targets,
)
from ...structures import Predictions, Refinement
from .blocks import Block, MatchedBoxes


@MODELS.register_module()
class FineGrainedLocalizationLoss(nn.Module):
    """FGL: cross-entropy of a box's four edges with where the true edges lie between two bins.

    Args:
        loss_weight: factor on the result.
    """

    def __init__(self, loss_weight: float = 0.15) -> None:
        super().__init__()
        check_numbers(loss_weight=loss_weight)
        self.loss_weight = loss_weight

    def forward(self, corners: Tensor, targets: EdgeTargets, weight: Tensor) -> Tensor:
        """(M,), summed over the edges: logits ``corners`` (M, 4, R + 1) against ``targets`` of (M, 4).

        ``weight`` (M,) is the IoU of the predicted boxes with the true ones, detached.
        """
        return self.loss_weight * weight * edge_cross_entropy(corners, targets).sum(-1)


@MODELS.register_module()
class DistributionDistillationLoss(nn.Module):
    """DDF: divergence of an earlier layer's edge distributions from the last layer's.

    Args:
        loss_weight: factor on the result.
        temperature: divides the logits of both.
    """

    def __init__(self, loss_weight: float = 1.5, temperature: float = 5.0) -> None:
        super().__init__()
        check_numbers(loss_weight=loss_weight)
        check_numbers(least=1e-3, temperature=temperature)
        self.loss_weight = loss_weight
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
        """(...), summed over the edges: logits ``student`` and ``teacher`` (..., 4, R + 1), each query's ``weight``.

        For :func:`~mmdet_iouquery.core.balanced_mean`; ``teacher`` is detached.
        """
        divergence = distillation_divergence(student, teacher, self.temperature)
        return self.loss_weight * weight * divergence.sum(-1)


def edge_losses(
    predictions: Predictions,
    blocks: Sequence[Block],
    truth_boxes: Tensor,
    loss_fgl: nn.Module | None,
    loss_ddf: nn.Module | None,
) -> dict[str, dict[str, Tensor]]:
    """The losses by term and prefix.

    Args:
        predictions: (L, B, Q, ...), of the blocks' queries, with their refinement.
        blocks: the last one has the matching queries, whose numbers of matched and other edges weigh the distillation
            of every block.
        truth_boxes: (T, 4).
        loss_fgl: of the matched edges' distributions against the ground truth; None: none.
        loss_ddf: of all edges' distributions before the last layer against the last layer's; None: none.
    """
    refinement = predictions.refinement
    assert refinement is not None, 'check_decoder'
    matched = MatchedBoxes.of(blocks, predictions.boxes, truth_boxes)
    iou = box_iou_elementwise(box_cxcywh_to_xyxy(matched.predicted.detach()), box_cxcywh_to_xyxy(matched.truth))
    losses = {}
    if loss_fgl is not None:
        losses['loss_fgl'] = matched.sums(_localisation(refinement, matched, iou, loss_fgl))
    if loss_ddf is not None:
        losses['loss_ddf'] = _distillation(predictions, refinement, matched, iou, loss_ddf)
    return losses


def _localisation(refinement: Refinement, matched: MatchedBoxes, iou: Tensor, loss_fgl: nn.Module) -> Tensor:
    """(M,): each pair's edges against those of its ground truth, weighted by the IoU (M,) of its box."""
    _, image, query = matched.pairs.predicted
    references = refinement.initial_boxes.detach()[0, image, query]
    targets = edge_targets(references, matched.truth, refinement.bin_values, refinement.reg_scale)
    return loss_fgl(refinement.corners[matched.pairs.predicted], targets, iou)


def _distillation(
    predictions: Predictions, refinement: Refinement, matched: MatchedBoxes, iou: Tensor, loss_ddf: nn.Module
) -> dict[str, Tensor]:
    """By prefix, of all layers but the last.

    An edge weighs what the box is worth: the IoU of a matched one, otherwise the last layer's best class probability.
    """
    num_layers = predictions.logits.shape[0]
    weight = predictions.logits[-1].detach().sigmoid().amax(-1).repeat(num_layers, 1, 1)
    weight[matched.pairs.predicted] = iou
    is_matched = torch.zeros_like(weight, dtype=torch.bool)
    is_matched[matched.pairs.predicted] = True
    teacher = refinement.corners[-1].detach()
    loss = loss_ddf(refinement.corners[:-1], teacher, weight[:-1])

    images = weight.shape[1]
    shares = balance(*_edge_counts(matched.blocks[-1], num_layers, images), images)
    losses: dict[str, Tensor] = {}
    for block in matched.blocks:
        means = balanced_mean(loss[:, :, block.queries], is_matched[:-1, :, block.queries], *shares)
        losses.update(zip(block.prefixes, means.unbind()))
    return losses


def _edge_counts(block: Block, num_layers: int, images: int) -> tuple[float, float]:
    """How many edges of a layer are matched, and how many are not."""
    edges = 4 * block.pairs.query.shape[0] / num_layers
    return edges, 4 * images * block.num_queries - edges

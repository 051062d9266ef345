"""D-FINE's losses of edge distributions (Peng et al. 2024, sections 4.1 and 4.2)."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor, nn

from ...argument_checks import check_numbers
from ...core import EdgeTargets, distillation_divergence, edge_cross_entropy


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

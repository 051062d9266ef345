"""Varifocal loss as mmdet's heads call a loss."""

from __future__ import annotations

from mmdet.models.losses import QualityFocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor

from ...core import varifocal_loss


@MODELS.register_module()
class IoUVarifocalLoss(QualityFocalLoss):
    """Varifocal loss with the matched box's IoU as target, in RT-DETR's form.

    The formula is :func:`mmdet_iouquery.core.varifocal_loss`.

    It is a ``QualityFocalLoss`` so that mmdet's own DINO, Deformable DETR and DAB-DETR heads, which ask for that class,
    hand it ``(labels, IoU)`` and take it by ``loss_cls=dict(type='IoUVarifocalLoss')`` alone.

    Args:
        alpha: weight of negatives; RT-DETR trains with 0.75.
        gamma: how fast easy negatives fade.
        reduction: 'none', 'mean' or 'sum' over the predictions; 'none' gives (N,), summed over the classes.
        loss_weight: factor on the result.
    """

    def __init__(
        self, alpha: float = 0.75, gamma: float = 2.0, reduction: str = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__(beta=gamma, reduction=reduction, loss_weight=loss_weight)
        self.alpha = alpha
        self.gamma = gamma

    def forward(
        self,
        pred: Tensor,
        target: tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Loss of logits ``pred`` (N, C) against ``target`` = (labels (N,), C for background; IoU (N,) in [0, 1]).

        ``weight`` (N,) multiplies each prediction's loss; ``avg_factor`` replaces N in the mean.
        """
        labels, quality = target
        loss = varifocal_loss(pred, labels, quality, alpha=self.alpha, gamma=self.gamma).sum(-1)
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction_override or self.reduction, avg_factor)

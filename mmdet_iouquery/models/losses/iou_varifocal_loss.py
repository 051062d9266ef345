"""Varifocal loss as mmdet's heads call a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.losses import QualityFocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor

from ...argument_checks import check_choice, check_numbers
from ...core import varifocal_loss
from ...errors import InputError


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
        class_weight: one factor for each class, on all its terms, as for rare classes that lag; None: 1 for all.

    Raises:
        ValueError: a ``class_weight`` that is negative or not finite; at the first call, one of another length than C.
    """

    def __init__(
        self,
        alpha: float = 0.75,
        gamma: float = 2.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        class_weight: Sequence[float] | None = None,
    ) -> None:
        check_numbers(alpha=alpha, gamma=gamma, loss_weight=loss_weight)
        check_choice(('none', 'mean', 'sum'), reduction=reduction)
        super().__init__(beta=gamma, reduction=reduction, loss_weight=loss_weight)
        self.alpha = alpha
        self.gamma = gamma
        if class_weight is not None and not _are_weights(class_weight):
            raise InputError(f'class_weight must be finite numbers of at least 0, got {class_weight!r}')
        weights = None if class_weight is None else torch.tensor([*class_weight], dtype=torch.float32)
        self.register_buffer('class_weight', weights, persistent=False)

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
        loss = varifocal_loss(pred, labels, quality, alpha=self.alpha, gamma=self.gamma)
        if self.class_weight is not None:
            if len(self.class_weight) != pred.shape[-1]:
                raise ValueError(f'class_weight has {len(self.class_weight)} numbers for {pred.shape[-1]} classes')
            loss = loss * self.class_weight
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss.sum(-1), weight, reduction, avg_factor)


def _are_weights(values: Any) -> bool:
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    return listed and all(isinstance(value, (int, float)) and 0 <= value < math.inf for value in values)

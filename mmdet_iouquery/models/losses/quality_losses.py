"""Losses that learn the matched box's IoU as its class score, as mmdet's heads call a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.losses import QualityFocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...argument_checks import check_choice, check_numbers
from ...core import matchability_aware_loss, varifocal_loss
from ...errors import InputError


class QualityLoss(QualityFocalLoss):
    """A loss of logits, labels and quality: a subclass gives the terms (N, C), and this weights and reduces them.

    It is a ``QualityFocalLoss`` so that mmdet's own DINO, Deformable DETR and DAB-DETR heads, which ask for that class,
    hand it ``(labels, IoU)`` and take it by its name in ``loss_cls`` alone.
    """

    def __init__(
        self,
        gamma: float,
        reduction: str,
        loss_weight: float,
        class_weight: Sequence[float] | None,
        use_sigmoid: bool,
    ) -> None:
        check_numbers(gamma=gamma, loss_weight=loss_weight)
        check_choice(('none', 'mean', 'sum'), reduction=reduction)
        if use_sigmoid is not True:
            raise InputError(
                f'{type(self).__name__} scores each class by a sigmoid of its own, but use_sigmoid is {use_sigmoid!r}: '
                'leave use_sigmoid out (where the head had a softmax, as in DETR, matching then needs a FocalLossCost '
                "in model.train_cfg.assigner.match_costs), or keep the head's own loss"
            )
        super().__init__(beta=gamma, reduction=reduction, loss_weight=loss_weight)
        self.gamma = gamma
        if class_weight is not None and not _are_weights(class_weight):
            raise InputError(f'class_weight must be finite numbers of at least 0, got {class_weight!r}')
        weights = None if class_weight is None else torch.tensor([*class_weight], dtype=torch.float32)
        self.register_buffer('class_weight', weights, persistent=False)

    def terms(self, logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
        """The loss (N, C) of logits (N, C), labels (N,) and quality (N,), before any weight."""
        raise NotImplementedError

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
        loss = self.terms(pred, *target)
        if self.class_weight is not None:
            if len(self.class_weight) != pred.shape[-1]:
                raise ValueError(
                    f'class_weight has {len(self.class_weight)} numbers for {pred.shape[-1]} classes; give one for '
                    'each class'
                )
            loss = loss * self.class_weight
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss.sum(-1), weight, reduction, avg_factor)


@MODELS.register_module()
class IoUVarifocalLoss(QualityLoss):
    """Varifocal loss with the matched box's IoU as target, in RT-DETR's form.

    The formula is :func:`mmdet_iouquery.core.varifocal_loss`.

    Args:
        alpha: weight of negatives; RT-DETR trains with 0.75.
        gamma: how fast easy negatives fade.
        reduction: 'none', 'mean' or 'sum' over the predictions; 'none' gives (N,), summed over the classes.
        loss_weight: factor on the result.
        class_weight: one factor for each class, on all its terms, as for rare classes that lag; None: 1 for all.
        use_sigmoid: True, as mmdet's heads read it; there is no form with a softmax.

    Raises:
        ValueError: a ``class_weight`` that is negative or not finite; ``use_sigmoid=False``; at the first call, a
            ``class_weight`` of another length than C.
    """

    def __init__(
        self,
        alpha: float = 0.75,
        gamma: float = 2.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        class_weight: Sequence[float] | None = None,
        use_sigmoid: bool = True,
    ) -> None:
        check_numbers(alpha=alpha)
        super().__init__(gamma, reduction, loss_weight, class_weight, use_sigmoid)
        self.alpha = alpha

    def terms(self, logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
        return varifocal_loss(logits, labels, quality, alpha=self.alpha, gamma=self.gamma)


@MODELS.register_module()
class MatchabilityAwareLoss(QualityLoss):
    """DEIM's loss: as :class:`IoUVarifocalLoss`, but a matched box of low IoU counts as much as one of high IoU.

    The formula is :func:`mmdet_iouquery.core.matchability_aware_loss`.

    Args:
        gamma: power of the IoU that is the target, and how fast easy negatives fade; DEIM trains with 1.5.
        alpha: weight of negatives; None, as DEIM trains: 1.
        reduction, loss_weight, class_weight, use_sigmoid: as for :class:`IoUVarifocalLoss`.

    Raises:
        ValueError: as for :class:`IoUVarifocalLoss`.
    """

    def __init__(
        self,
        gamma: float = 1.5,
        alpha: float | None = None,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        class_weight: Sequence[float] | None = None,
        use_sigmoid: bool = True,
    ) -> None:
        if alpha is not None:
            check_numbers(alpha=alpha)
        super().__init__(gamma, reduction, loss_weight, class_weight, use_sigmoid)
        self.alpha = alpha

    def terms(self, logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
        return matchability_aware_loss(logits, labels, quality, gamma=self.gamma, alpha=self.alpha)


def takes_quality(loss_cls: nn.Module) -> bool:
    """Whether a classification loss is given ``(labels, quality)``, as mmdet's heads tell; else labels alone."""
    return isinstance(loss_cls, QualityFocalLoss)


def check_sigmoid(loss_cls: nn.Module) -> None:
    """Raise :class:`InputError` for a loss that needs a logit for "no object", which decoders do not give."""
    if getattr(loss_cls, 'use_sigmoid', True) is False:
        raise InputError(
            f'loss_cls={type(loss_cls).__name__} scores classes by a softmax, but decoders score each by a sigmoid: '
            "name a loss of sigmoids, such as dict(type='IoUVarifocalLoss') or dict(type='FocalLoss', use_sigmoid=True)"
        )


def _are_weights(values: Any) -> bool:
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    return listed and all(isinstance(value, (int, float)) and 0 <= value < math.inf for value in values)

"""Align-DETR's classification loss, for RT-DETR and for the heads of mmdet's DETRs that know QualityFocalLoss."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_iouquery.models.losses import QualityLoss

LEAST_TARGET = 0.01


@MODELS.register_module()
class AlignLoss(QualityLoss):
    """IoU-aware binary cross-entropy (Cai et al. 2023, "Align-DETR", arXiv 2304.07527; its least target is its code's).

    The target of a matched box is ``t = s ** alpha * u ** (1 - alpha)`` of its score s and its IoU u, with weight 1;
    every other entry has target 0 and weight ``s ** gamma``. Weights and targets are no path for gradients.

    Args:
        alpha: how much the target follows the score that there is already.
        gamma: how fast easy negatives fade.
        reduction, loss_weight, class_weight, use_sigmoid: as for ``IoUVarifocalLoss``.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        class_weight: Any = None,
        use_sigmoid: bool = True,
    ) -> None:
        super().__init__(gamma, reduction, loss_weight, class_weight, use_sigmoid)
        self.alpha = alpha

    def terms(self, logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
        """(N, C) of logits (N, C), labels (N,), C for background, and quality (N,) in [0, 1]."""
        score = logits.detach().sigmoid()
        of_label = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
        aligned = score**self.alpha * quality.to(score.dtype)[:, None] ** (1 - self.alpha)
        target = torch.where(of_label, aligned.clamp(min=LEAST_TARGET), 0.0)
        weight = torch.where(of_label, 1.0, score**self.gamma)
        return F.binary_cross_entropy_with_logits(logits, target, weight, reduction='none')

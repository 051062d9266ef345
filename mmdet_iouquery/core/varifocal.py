"""Varifocal loss with IoU targets, in the form that RT-DETR trains with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def varifocal_loss(
    logits: Tensor, labels: Tensor, quality: Tensor, *, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    """Binary cross-entropy against the box's IoU, weighted so that easy negatives fade (VarifocalNet, eq. 2).

    For the labelled class q = ``quality`` is both target and weight; every other entry has target 0 and weight
    ``alpha * p ** gamma``, where p is the predicted probability, detached: the weight is no path for gradients.
    What is positive is told by the label and not by q > 0, so a matched box with IoU 0 has weight 0 instead of being
    pushed down as a negative (RT-DETR's form).

    Args:
        logits: (N, C).
        labels: (N,) int64, the class in [0, C), or C for background.
        quality: (N,) in [0, 1], IoU of the matched box; not read where the label is background.

    Returns:
        (N, C), the unreduced loss, in the logits' type.
    """
    positive = labels.unsqueeze(-1) == torch.arange(logits.shape[-1], device=labels.device)
    target = torch.where(positive, quality.to(logits.dtype).unsqueeze(-1), 0.0)
    weight = torch.where(positive, target, alpha * logits.detach().sigmoid().pow(gamma))
    return F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction='none')

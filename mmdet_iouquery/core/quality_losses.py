"""Classification losses that learn the matched box's IoU as the score of its class."""

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
    positive = _is_labelled(logits, labels)
    target = torch.where(positive, quality.to(logits.dtype).unsqueeze(-1), 0.0)
    weight = torch.where(positive, target, alpha * _faded(logits, gamma))
    return F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction='none')


def matchability_aware_loss(
    logits: Tensor, labels: Tensor, quality: Tensor, *, gamma: float = 1.5, alpha: float | None = None
) -> Tensor:
    """Binary cross-entropy against a power of the box's IoU, with full weight on every matched box (DEIM, eq. 5).

    For the labelled class the target is ``q ** gamma``, q = ``quality``, and the weight 1; every other entry has target
    0 and weight ``p ** gamma``, where p is the predicted probability, detached. A matched box of low IoU counts as much
    as one of high IoU, where the varifocal loss all but leaves it out: with IoU 0 its score is pushed down.

    Args:
        logits: (N, C).
        labels: (N,) int64, the class in [0, C), or C for background.
        quality: (N,) in [0, 1], IoU of the matched box; not read where the label is background.
        alpha: factor on the weight of the other entries; None: 1.

    Returns:
        (N, C), the unreduced loss, in the logits' type.
    """
    positive = _is_labelled(logits, labels)
    target = torch.where(positive, quality.to(logits.dtype).unsqueeze(-1).pow(gamma), 0.0)
    faded = _faded(logits, gamma)
    weight = torch.where(positive, 1.0, faded if alpha is None else alpha * faded)
    return F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction='none')


def _is_labelled(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, C), True at each row's class."""
    return labels.unsqueeze(-1) == torch.arange(logits.shape[-1], device=labels.device)


def _faded(logits: Tensor, gamma: float) -> Tensor:
    """(N, C): little where the predicted probability is low."""
    return logits.detach().sigmoid().pow(gamma)

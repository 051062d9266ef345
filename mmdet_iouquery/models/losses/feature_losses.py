"""Losses of feature maps against a teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...argument_checks import check_numbers


@MODELS.register_module()
class CosineFeatureLoss(nn.Module):
    """How far the vectors of a student's map point away from a teacher's: the mean of 1 - cos (RT-DETRv4's DSI).

    Args:
        loss_weight: factor on the result; RT-DETRv4-S and M begin with 5.
    """

    def __init__(self, loss_weight: float = 5.0) -> None:
        super().__init__()
        check_numbers(loss_weight=loss_weight)
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
        """A scalar in [0, 2 * loss_weight].

        Args:
            student: (B, C, h, w).
            teacher: (B, C, h', w'), without a gradient; brought to h and w by :func:`resized`.
            weight: (B, h, w), how much each position counts in the mean, 0 and 1 for some; None: all the same.
        """
        away = 1 - F.cosine_similarity(student.float(), resized(teacher.float(), student.shape[-2:]), dim=1)
        mean = away.mean() if weight is None else (weight * away).sum() / weight.sum().clamp(min=1.0)
        return self.loss_weight * mean


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """A map (B, C, h, w) at another size: averaged where it is a whole multiple of it, else interpolated.

    Halved, the two are the same: RT-DETRv4's code, which interpolates always, has no other case.
    """
    height, width = size
    if x.shape[-2:] == (height, width):
        return x
    if all(given % wanted == 0 for given, wanted in zip(x.shape[-2:], size)):
        return F.adaptive_avg_pool2d(x, (height, width))
    return F.interpolate(x, size=(height, width), mode='bilinear', align_corners=False)

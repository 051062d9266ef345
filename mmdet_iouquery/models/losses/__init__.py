"""Losses and the criterion that applies them."""

from .iou_varifocal_loss import IoUVarifocalLoss
from .set_criterion import BatchedHungarianAssigner, SetCriterion

__all__ = ['BatchedHungarianAssigner', 'IoUVarifocalLoss', 'SetCriterion']

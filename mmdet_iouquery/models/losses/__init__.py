"""Losses, matching, and the criterion that applies them."""

from .assigners import BatchedHungarianAssigner, PerImageAssigner
from .distribution_losses import DistributionDistillationLoss, FineGrainedLocalizationLoss
from .iou_varifocal_loss import IoUVarifocalLoss
from .set_criterion import SetCriterion

__all__ = [
    'BatchedHungarianAssigner',
    'DistributionDistillationLoss',
    'FineGrainedLocalizationLoss',
    'IoUVarifocalLoss',
    'PerImageAssigner',
    'SetCriterion',
]

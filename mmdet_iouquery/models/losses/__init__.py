"""Losses, matching, and the criterion that applies them."""

from .distribution_losses import DistributionDistillationLoss, FineGrainedLocalizationLoss
from .iou_varifocal_loss import IoUVarifocalLoss
from .per_image_assigner import PerImageAssigner
from .set_criterion import BatchedHungarianAssigner, SetCriterion

__all__ = [
    'BatchedHungarianAssigner',
    'DistributionDistillationLoss',
    'FineGrainedLocalizationLoss',
    'IoUVarifocalLoss',
    'PerImageAssigner',
    'SetCriterion',
]

"""Losses, matching, and the criterion that applies them."""

from .assigners import BatchedHungarianAssigner, PerImageAssigner
from .edge_losses import DistributionDistillationLoss, FineGrainedLocalizationLoss
from .feature_losses import CosineFeatureLoss
from .quality_losses import IoUVarifocalLoss, MatchabilityAwareLoss, QualityLoss
from .set_criterion import SetCriterion

__all__ = [
    'BatchedHungarianAssigner',
    'CosineFeatureLoss',
    'DistributionDistillationLoss',
    'FineGrainedLocalizationLoss',
    'IoUVarifocalLoss',
    'MatchabilityAwareLoss',
    'PerImageAssigner',
    'QualityLoss',
    'SetCriterion',
]

"""Batch augmentations for mmdet's data preprocessor, and one that lets a detector learn from a teacher."""

from .batch_mix_up import BatchMixUp
from .batch_multi_scale import BatchMultiScale
from .distilling import DistillingDataPreprocessor
from .teacher_features import TeacherFeatures

__all__ = ['BatchMixUp', 'BatchMultiScale', 'DistillingDataPreprocessor', 'TeacherFeatures']

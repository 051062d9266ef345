"""Batch augmentations for mmdet's data preprocessor, and one that lets a detector learn from a teacher."""

from .batch_copy_blend import BatchCopyBlend
from .batch_mix_up import BatchMixUp
from .batch_multi_scale import BatchMultiScale
from .distilling import DistillingDataPreprocessor
from .teacher_features import TeacherFeatures

__all__ = [
    'BatchCopyBlend',
    'BatchMixUp',
    'BatchMultiScale',
    'DistillingDataPreprocessor',
    'TeacherFeatures',
]

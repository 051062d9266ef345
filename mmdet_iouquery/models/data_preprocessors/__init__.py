"""Batch augmentations for mmdet's data preprocessor."""

from .batch_copy_blend import BatchCopyBlend
from .batch_mix_up import BatchMixUp
from .batch_multi_scale import BatchMultiScale

__all__ = ['BatchCopyBlend', 'BatchMixUp', 'BatchMultiScale']

"""Batch augmentations for mmdet's data preprocessor."""

from .batch_mix_up import BatchMixUp
from .batch_multi_scale import BatchMultiScale

__all__ = ['BatchMixUp', 'BatchMultiScale']

"""Batch augmentations for mmdet's data preprocessor."""

from .batch_multi_scale import BatchMultiScale

__all__ = ['BatchMultiScale']

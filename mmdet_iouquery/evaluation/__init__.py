"""Metrics for mmdet's evaluators."""

from .fast_coco_metric import FastCocoMetric
from .query_selection_metric import QuerySelectionMetric

__all__ = ['FastCocoMetric', 'QuerySelectionMetric']

"""Metrics for mmdet's evaluators."""

from .query_selection_metric import QuerySelectionMetric

__all__ = ['QuerySelectionMetric']

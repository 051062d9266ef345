"""From a trained detector to one that predicts fast."""

from .prepare import prepare_for_inference

__all__ = ['prepare_for_inference']

"""Necks."""

from .hybrid_encoder import HybridEncoder

__all__ = ['HybridEncoder']

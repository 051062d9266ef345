"""Necks."""

from .hybrid_encoder import HybridEncoder
from .lite_encoder import LiteEncoder

__all__ = ['HybridEncoder', 'LiteEncoder']

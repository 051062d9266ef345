"""Decoders."""

from .dab import DABDecoder
from .deformable import DeformableDecoder

__all__ = ['DABDecoder', 'DeformableDecoder']

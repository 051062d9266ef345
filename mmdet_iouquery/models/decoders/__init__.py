"""Decoders."""

from .dab import DABDecoder
from .deformable import DeformableDecoder
from .distribution import DistributionDecoder

__all__ = ['DABDecoder', 'DeformableDecoder', 'DistributionDecoder']

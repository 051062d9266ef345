"""Decoders, and what one of your own can be built of."""

from ..layers import DeformableDecoderLayer
from .dab import DABDecoder
from .deformable import BoxDecoder, DeformableDecoder, class_head
from .distribution import DistributionDecoder

__all__ = [
    'BoxDecoder',
    'DABDecoder',
    'DeformableDecoder',
    'DeformableDecoderLayer',
    'DistributionDecoder',
    'class_head',
]

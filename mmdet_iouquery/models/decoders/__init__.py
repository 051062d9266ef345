"""Decoders."""

from .deformable import DeformableDecoder

__all__ = ['DeformableDecoder']

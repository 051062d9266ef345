"""Denoising query generators."""

from .contrastive import ContrastiveDenoising

__all__ = ['ContrastiveDenoising']

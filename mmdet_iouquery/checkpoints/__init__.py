"""Weights from other projects, and back."""

from .convert import SOURCES, convert, convert_back, unwrap

__all__ = ['SOURCES', 'convert', 'convert_back', 'unwrap']

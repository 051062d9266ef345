"""Weights from other projects, and back."""

from ..choices import SOURCES, TARGETS
from .class_head import select_classes
from .convert import convert, convert_back, sources_of, unwrap

__all__ = ['SOURCES', 'TARGETS', 'convert', 'convert_back', 'select_classes', 'sources_of', 'unwrap']

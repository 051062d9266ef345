"""Query selectors: what the decoder starts from."""

from .iou_aware import IoUAwareQuerySelector

__all__ = ['IoUAwareQuerySelector']

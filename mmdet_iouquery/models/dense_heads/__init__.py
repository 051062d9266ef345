"""Dense heads."""

from .rtdetr_head import RTDETRHead

__all__ = ['RTDETRHead']

"""Backbones."""

from .hgnetv2 import HGNetv2
from .resnet_vd import ResNetVd
from .vit import VisionTransformer
from .vit_adapter import ViTAdapter

__all__ = ['HGNetv2', 'ResNetVd', 'ViTAdapter', 'VisionTransformer']

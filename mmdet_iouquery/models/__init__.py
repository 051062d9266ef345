"""The registered parts, in OpenMMLab's own folders."""

from . import backbones, data_preprocessors, decoders, denoising, dense_heads, hosts, losses, necks, query_selectors

__all__ = [
    'backbones',
    'data_preprocessors',
    'decoders',
    'denoising',
    'dense_heads',
    'hosts',
    'losses',
    'necks',
    'query_selectors',
]

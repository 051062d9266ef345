"""Small building blocks that several parts share. Not registered: they are no choices of a config."""

from . import mmcv_attention  # noqa: F401  registers a back end
from .attention import ConcatenatedCrossAttention, SelfAttention, SeparatedSelfAttention
from .conv import ConvNormAct, enlarged
from .deformable_attention import DeformableAttention
from .fused_norm import can_fuse, norm_relu_conv, norm_relu_pool, norm_silu
from .mlp import MLP
from .tokens import as_tokens, fastest_format, keeping_layout, memory_format_of
from .winograd_conv import WinogradConv2d, can_winograd

__all__ = [
    'MLP',
    'ConcatenatedCrossAttention',
    'ConvNormAct',
    'DeformableAttention',
    'SelfAttention',
    'SeparatedSelfAttention',
    'WinogradConv2d',
    'as_tokens',
    'can_fuse',
    'can_winograd',
    'enlarged',
    'fastest_format',
    'keeping_layout',
    'memory_format_of',
    'norm_relu_conv',
    'norm_relu_pool',
    'norm_silu',
]

"""Small building blocks that several parts share. Not registered: they are no choices of a config."""

from . import mmcv_attention  # noqa: F401  registers a back end
from .attention import (
    ConcatenatedCrossAttention,
    DenseAttention,
    DotProductAttention,
    SelfAttention,
    SeparatedSelfAttention,
)
from .box_position import BoxPositionMLP
from .conv import ConvNormAct, LearnableAffine, input_projections
from .decoder_layer import NORMS, DeformableDecoderLayer, FusionGate, RMSNorm
from .deformable_attention import DeformableAttention, SampledAttention
from .mlp import MLP, SwiGLU
from .tokens import as_map, as_tokens, keep_layout, layout_of

__all__ = [
    'MLP',
    'NORMS',
    'BoxPositionMLP',
    'ConcatenatedCrossAttention',
    'ConvNormAct',
    'DeformableAttention',
    'DeformableDecoderLayer',
    'DenseAttention',
    'DotProductAttention',
    'FusionGate',
    'LearnableAffine',
    'RMSNorm',
    'SampledAttention',
    'SelfAttention',
    'SeparatedSelfAttention',
    'SwiGLU',
    'as_map',
    'as_tokens',
    'input_projections',
    'keep_layout',
    'layout_of',
]

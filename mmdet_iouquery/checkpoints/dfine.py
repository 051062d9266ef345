"""Names of the authors' D-FINE (Peterande/D-FINE), which DEIM shares, beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..errors import InputError
from . import hgnetv2
from .prefix_map import PrefixMap

MOST_LAYERS, _MOST_LEVELS = 12, 8

CONSTANTS = ('up', 'reg_scale')
"""What the bins of distributions are made of: no weights, but numbers that the weights were trained with."""
_REPEATED = {f'decoder.decoder.{constant}': f'decoder.{constant}' for constant in CONSTANTS}
"""Where they occur a second time, to where we read them."""


def encoder_pairs() -> Iterator[tuple[str, str]]:
    """The hybrid encoder's prefixes, theirs and ours."""
    for part in ('input_proj.', 'encoder.', 'lateral_convs.'):
        yield f'encoder.{part}', f'neck.{part}'
    for level in range(_MOST_LEVELS):
        for blocks in ('fpn_blocks', 'pan_blocks'):
            yield from fusion_pairs(f'{blocks}.{level}.')
        for i in range(2):
            yield f'encoder.downsample_convs.{level}.0.cv{i + 1}.', f'neck.downsample_convs.{level}.{i}.'


def fusion_pairs(block: str) -> Iterator[tuple[str, str]]:
    """Those of a fusion block, which has the same name in both."""
    for theirs, ours in enumerate(('conv1', 'stages.0', 'stages.1', 'conv2'), 1):
        yield f'encoder.{block}cv{theirs}.', f'neck.{block}{ours}.'


def repeated(weights: Mapping[str, Tensor]) -> list[str]:
    """The keys of constants that occur a second time.

    Raises:
        InputError: with another value.
    """
    for key, first in _REPEATED.items():
        if key in weights and not torch.equal(weights[key], weights.get(first, weights[key])):
            values = f'{key} is {weights[key].tolist()} and {first} is {weights[first].tolist()}'
            raise InputError(f'{values}, which must be equal: the file is damaged; get it again')
    return [key for key, first in _REPEATED.items() if key in weights and first in weights]


def with_repeated(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under their names, with the constants once more, as their code reads them."""
    return {**weights, **{key: weights[first] for key, first in _REPEATED.items() if first in weights}}


def head_pairs() -> Iterator[tuple[str, str]]:
    """The prefixes of what DEIMv2 has too, in selector, denoising embedding and decoder; two are whole keys."""
    yield 'decoder.input_proj.', 'bbox_head.input_proj.'
    yield 'decoder.enc_score_head.', 'bbox_head.query_selector.cls_head.'
    yield 'decoder.enc_bbox_head.', 'bbox_head.query_selector.bbox_head.'
    yield 'decoder.denoising_class_embed.', 'bbox_head.denoising.label_embedding.'
    yield 'decoder.query_pos_head.', 'bbox_head.decoder.query_pos_head.'
    yield 'decoder.dec_score_head.', 'bbox_head.decoder.cls_heads.'
    yield 'decoder.pre_bbox_head.', 'bbox_head.decoder.initial_bbox_head.'
    yield 'decoder.dec_bbox_head.', 'bbox_head.decoder.bbox_heads.'
    for layer in range(MOST_LAYERS):
        theirs = f'decoder.decoder.lqe_layers.{layer}.reg_conf.'
        yield theirs, f'bbox_head.decoder.quality_heads.{layer}.'
    for constant in CONSTANTS:
        yield f'decoder.{constant}', f'bbox_head.decoder.{constant}'


def _own_pairs() -> Iterator[tuple[str, str]]:
    """The prefixes of the selector's projection and the decoder's layers."""
    for part in ('proj', 'norm'):
        yield f'decoder.enc_output.{part}.', f'bbox_head.query_selector.memory_{part}.'
    for layer in range(MOST_LAYERS):
        for part in ('self_attn', 'norm1', 'cross_attn', 'norm2', 'gateway', 'linear1', 'linear2', 'norm3'):
            yield f'decoder.decoder.layers.{layer}.{part}.', f'bbox_head.decoder.layers.{layer}.{part}.'


DETECTOR = PrefixMap(
    [*hgnetv2.backbone('backbone.', 'backbone.'), *encoder_pairs(), *head_pairs(), *_own_pairs()],
    "the authors' D-FINE or DEIM",
)

PROJECTOR = 'encoder.feature_projector.'
"""Of RT-DETRv4 (RT-DETRs/RT-DETRv4), which is DEIM's model; distillation alone reads it."""
DETECTOR_V4 = PrefixMap([*DETECTOR.pairs, (f'{PROJECTOR}0.', 'data_preprocessor.projector.')], "the authors' RT-DETRv4")

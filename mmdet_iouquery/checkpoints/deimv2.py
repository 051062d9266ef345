"""Names of the authors' DEIMv2 (Intellindust-AI-Lab/DEIMv2) beside ours: D-FINE's but for layers, small necks, ViTs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

import torch
from torch import Tensor

from ..errors import InputError
from . import dfine, hgnetv2, vit
from .prefix_map import PrefixMap

_BOX_HEAD = re.compile(r'(decoder\.dec_bbox_head)\.(\d+)\.(.*)')
_LAYER = re.compile(r'decoder\.decoder\.lqe_layers\.(\d+)\.')


def _lite_encoder_pairs() -> Iterator[tuple[str, str]]:
    for theirs, ours in (('down_sample1', 'coarser'), ('down_sample2', 'downsample')):
        yield f'encoder.{theirs}.1.', f'neck.{ours}.1.conv.'
        yield f'encoder.{theirs}.2.', f'neck.{ours}.1.norm.'
    yield 'encoder.bi_fusion.cv.', 'neck.context.conv.'
    for block in ('fpn_block.', 'pan_block.'):
        yield from dfine.fusion_pairs(block)


def _layer_pairs() -> Iterator[tuple[str, str]]:
    for layer in range(dfine.MOST_LAYERS):
        theirs, ours = f'decoder.decoder.layers.{layer}.', f'bbox_head.decoder.layers.{layer}.'
        for part in ('self_attn.', 'cross_attn.', 'gateway.gate.'):
            yield f'{theirs}{part}', f'{ours}{part}'
        yield f'{theirs}swish_ffn.', f'{ours}swiglu.'
        for norm in ('norm1', 'norm2', 'norm3', 'gateway.norm'):
            yield f'{theirs}{norm}.scale', f'{ours}{norm}.weight'


def _detector(*backbone: tuple[str, str]) -> PrefixMap:
    behind = (*dfine.encoder_pairs(), *_lite_encoder_pairs(), *dfine.head_pairs(), *_layer_pairs())
    return PrefixMap([*backbone, *behind], "the authors' DEIMv2")


_PRIOR = tuple(vit.prior_pairs('backbone.', 'backbone.'))
DETECTOR = _detector(*hgnetv2.backbone('backbone.', 'backbone.'))
DETECTOR_TINY = _detector(*vit.pairs('backbone.dinov3._model.', 'backbone.vit.'), *_PRIOR)
DETECTOR_DINOV3 = _detector(*vit.pairs('backbone.dinov3.', 'backbone.vit.'), *_PRIOR)
"""With an HGNetv2; with a ViT-tiny; with DINOv3's, whose halves of gated networks are joined: see :mod:`.vit`."""


def detector(weights: Iterable[str]) -> PrefixMap:
    """Which of the three these keys, theirs or ours, belong to: DINOv3's has further tokens."""
    keys = set(weights)
    if any(key.startswith(('backbone.dinov3._model.', 'backbone.vit.')) for key in keys):
        return DETECTOR_DINOV3 if 'backbone.vit.register_tokens' in keys else DETECTOR_TINY
    return DETECTOR_DINOV3 if any(key.startswith('backbone.dinov3.') for key in keys) else DETECTOR


def repeated(weights: Mapping[str, Tensor]) -> list[str]:
    """Keys that repeat another: constants, and a box head for all layers, which has the name of each.

    Raises:
        InputError: constants that differ, or box heads of which some are equal and others are not.
    """
    heads = _box_heads(weights)
    equal = [pair for pair in combinations(heads, 2) if _equal(*(heads[i] for i in pair))]
    if equal and 2 * len(equal) < len(heads) * (len(heads) - 1):
        first, second = equal[0]
        raise InputError(
            f'decoder.dec_bbox_head: of {len(heads)} heads {first} and {second} are equal, and others are not, where a '
            'DEIMv2 has either one head for all layers or one for each: the file is damaged; get it again'
        )
    keys = [key for key in weights if (match := _BOX_HEAD.fullmatch(key)) and int(match[2]) != min(heads)]
    return dfine.repeated(weights) + (keys if equal else [])


def with_repeated(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under their names, with the keys once more that :func:`repeated` finds, and what DINOv3's ViT needs."""
    layers = {int(match[1]) for match in map(_LAYER.match, weights) if match}
    heads = _box_heads(weights)
    copies = {
        f'decoder.dec_bbox_head.{layer}.{name}': value
        for layer in sorted(layers - {0})
        for name, value in heads.get(0, {}).items()
        if len(heads) == 1
    }
    return dfine.with_repeated(vit.as_dinov3_has_it({**weights, **copies}))


def _box_heads(weights: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The layers' box heads, each by the names of its weights."""
    heads: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for key, value in weights.items():
        if match := _BOX_HEAD.fullmatch(key):
            heads[int(match[2])][match[3]] = value
    return heads


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)

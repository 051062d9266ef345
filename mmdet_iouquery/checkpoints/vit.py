"""Names of plain ViTs elsewhere beside ours: DEIMv2's, DINOv3's, EdgeCrafter's and Hugging Face's DINOv3ViT."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ..errors import InputError
from .prefix_map import PrefixMap

_MOST_BLOCKS = 40

_MASK_TOKEN = 'mask_token'
"""End of the key of what only DINOv3's own training reads."""
_KEY_BIAS_MASKS = '.qkv.bias_mask'
"""End of keys of DINOv3 that hold no weights: the keys' part of each bias is 0, the other parts are 1."""
PERIODS = 'rope_embed.periods'

_BLOCK = {
    'norm1.': 'norm1.',
    'attn.qkv.': 'attn.qkv.',
    'attn.proj.': 'attn.proj.',
    'ls1.': 'scale1.',
    'norm2.': 'norm2.',
    'mlp.fc1.': 'ffn.layers.0.',
    'mlp.fc2.': 'ffn.layers.1.',
    'mlp.w12.': 'ffn.w12.',
    'mlp.w3.': 'ffn.w3.',
    'ls2.': 'scale2.',
}


def pairs(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    """Pairs for a :class:`PrefixMap`, of a SwiGLU whose first two layers are joined: see :func:`join_gates`.

    Args:
        theirs, ours: what stands before a ViT's keys, e.g. ``backbone.dinov3.``.
    """
    yield f'{theirs}cls_token', f'{ours}class_token'
    yield f'{theirs}storage_tokens', f'{ours}register_tokens'
    yield f'{theirs}patch_embed.', f'{ours}patch_embed.'
    for i in range(_MOST_BLOCKS):
        for their_part, our_part in _BLOCK.items():
            yield f'{theirs}blocks.{i}.{their_part}', f'{ours}blocks.{i}.{our_part}'
    yield f'{theirs}norm.', f'{ours}norm.'
    yield f'{theirs}{PERIODS}', f'{ours}rotary_periods'


def ecvit_pairs(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    """:func:`pairs` of EdgeCrafter's ViT."""
    yield from (pair for pair in pairs(theirs, ours) if not pair[0].endswith(('cls_token', 'storage_tokens')))
    yield f'{theirs}register_token', f'{ours}register_tokens'


def prior_pairs(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    """Pairs of DEIMv2's spatial prior and of the projections behind it; prefixes as in :func:`pairs`."""
    for i, (name, first) in enumerate((('stem', 0), ('conv2', 0), ('conv3', 1), ('conv4', 1))):
        for j, part in enumerate(('conv', 'norm')):
            yield f'{theirs}sta.{name}.{first + j}.', f'{ours}prior.convs.{i}.{part}.'
    for level in range(4):
        yield f'{theirs}convs.{level}.', f'{ours}projections.{level}.conv.'
        yield f'{theirs}norms.{level}.', f'{ours}projections.{level}.norm.'


BACKBONE = PrefixMap(pairs('', ''), "DEIMv2's or DINOv3's ViT")
ECVIT = PrefixMap(ecvit_pairs('', ''), "EdgeCrafter's ViT")


def backbone(weights: Iterable[str]) -> PrefixMap:
    """Which of the two a bare ViT's keys belong to."""
    return ECVIT if 'register_token' in weights else BACKBONE


def without_weights(weights: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """The keys of tokens that only DINOv3's training reads, and those that say which part of a bias counts.

    Raises:
        InputError: the latter say something else than that keys have no bias.
    """
    masks = [key for key in weights if key.endswith(_KEY_BIAS_MASKS)]
    for key in masks:
        if not torch.equal(weights[key].float(), key_bias_mask(weights[key])):
            raise InputError(
                f'{key} must be 1 for queries and values and 0 for keys, and is not; where it holds NaN, the ViT did '
                'not start from weights of DINOv3, and the file is of no use: get another'
            )
    return [key for key in weights if key.endswith(_MASK_TOKEN)], masks


def key_bias_mask(bias: Tensor) -> Tensor:
    """1 for queries and values and 0 for keys, of a bias's shape, float32."""
    third = torch.ones(bias.numel() // 3)
    return torch.cat([third, torch.zeros_like(third), third])


def as_dinov3_has_it(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under DINOv3's names with gated networks' halves apart, and with what holds no weights.

    That is, where there are storage tokens, which part of each bias counts, and the token of hidden patches, zero.
    """
    apart = split_gates(weights)
    for key in [key for key in weights if key.endswith('storage_tokens')]:
        prefix = key[: -len('storage_tokens')]
        for bias in [name for name in weights if name.startswith(prefix) and name.endswith('.qkv.bias')]:
            apart[f'{bias}_mask'] = key_bias_mask(weights[bias])
        apart[f'{prefix}{_MASK_TOKEN}'] = torch.zeros_like(weights[key][0, :1])
    return apart


_GATE = re.compile(r'(.*\.mlp\.)w([12])\.(weight|bias)')
_JOINED_GATE = re.compile(r'(.*\.mlp\.)w12\.(weight|bias)')


def file_names(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int, int]:
    """A bare ViT's weights under the names of :data:`BACKBONE` or :data:`ECVIT`, Hugging Face's renamed to these.

    Returns:
        The weights, how many keys were joined, and how many weights these made, or follow from others.
    """
    named, num_made = _from_transformers(weights) if is_transformers(weights) else (dict(weights), 0)
    joined = join_gates(named)
    num_gates = len(named) - len(joined)
    num_projections = sum(_PROJECTION.search(key) is not None for key in weights)
    return joined, num_projections + 2 * num_gates, num_made + num_gates


def join_gates(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """w1 and w2 of a SwiGLU, each (h, D) and (h,), as w12, (2h, D) and (2h,).

    Raises:
        InputError: one of the two is missing, or of another shape.
    """
    joined: dict[str, Tensor] = {}
    for key, value in weights.items():
        match = _GATE.fullmatch(key)
        if match is None:
            joined[key] = value
            continue
        name = f'{match[1]}w{3 - int(match[2])}.{match[3]}'
        other = weights.get(name)
        if other is None or other.shape != value.shape or not value.dim():
            shape = 'missing' if other is None else f'of shape {tuple(other.shape)} beside {tuple(value.shape)}'
            raise InputError(f'{key} is half of a SwiGLU, and {name} is {shape} in the file; get it again')
        if match[2] == '1':
            joined[f'{match[1]}w12.{match[3]}'] = torch.cat([value, other])
    return joined


def split_gates(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back of :func:`join_gates`."""
    apart: dict[str, Tensor] = {}
    for key, value in weights.items():
        match = _JOINED_GATE.fullmatch(key)
        if match:
            apart.update({f'{match[1]}w{i}.{match[2]}': half for i, half in zip((1, 2), value.chunk(2))})
        else:
            apart[key] = value
    return apart


# --- Hugging Face -----------------------------------------------------------------------------------------------------

_HEAD_DIMS = 64
"""Of all published sizes but the largest."""
_LAYER = re.compile(r'(?:model\.)?layer\.(\d+)\.(.*)')
_PROJECTION = re.compile(r'\.attention\.[qkv]_proj\.(?:weight|bias)$')
_EMBEDDINGS = {
    'embeddings.cls_token': 'cls_token',
    'embeddings.mask_token': 'mask_token',
    'embeddings.register_tokens': 'storage_tokens',
    'embeddings.patch_embeddings.weight': 'patch_embed.proj.weight',
    'embeddings.patch_embeddings.bias': 'patch_embed.proj.bias',
}
_OF_LAYER = {
    'norm1.': 'norm1.',
    'norm2.': 'norm2.',
    'attention.o_proj.': 'attn.proj.',
    'layer_scale1.lambda1': 'ls1.gamma',
    'layer_scale2.lambda1': 'ls2.gamma',
}
_MLP = {'mlp.up_proj.': 'mlp.fc1.', 'mlp.down_proj.': 'mlp.fc2.'}
_GATED_MLP = {'mlp.gate_proj.': 'mlp.w1.', 'mlp.up_proj.': 'mlp.w2.', 'mlp.down_proj.': 'mlp.w3.'}


def is_transformers(weights: Iterable[str]) -> bool:
    """Whether these are Hugging Face's names."""
    return any(key.startswith('embeddings.') for key in weights)


def own_name(key: str) -> str:
    """DINOv3's name of one of Hugging Face's keys outside the layers; any other as it is."""
    return _EMBEDDINGS.get(key, key)


def _from_transformers(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Weights of Hugging Face's ``DINOv3ViTModel`` under DINOv3's own names, and how many of them are no file's key.

    Keys get a bias of zero, and heads are taken to be 64 channels wide, as in all sizes but the largest: their files
    hold neither.

    Raises:
        InputError: a key that is none of theirs, or one that is missing.
    """
    gated = any('.mlp.gate_proj.' in key for key in weights)
    named: dict[str, Tensor] = {}
    projections: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in weights.items():
        match = _LAYER.fullmatch(key)
        if match is None:
            named[own_name(key)] = value
        elif _PROJECTION.search(key):
            name, kind = match[2].rsplit('.', 1)
            projections[f'blocks.{match[1]}.attn.qkv.{kind}'][name[-len('q_proj')]] = value
        else:
            named[f'blocks.{match[1]}.{_name_in_layer(match[2], gated)}'] = value
    made = {key: _joined(key, parts) for key, parts in projections.items()}
    made[PERIODS] = 100.0 ** (torch.arange(_HEAD_DIMS // 4) / (_HEAD_DIMS // 4))
    return {**named, **made}, len(made)


def _name_in_layer(key: str, gated: bool) -> str:
    for theirs, ours in {**_OF_LAYER, **(_GATED_MLP if gated else _MLP)}.items():
        if key.startswith(theirs):
            return ours + key[len(theirs) :]
    raise InputError(f"unknown key {key!r} in a layer: not one of Hugging Face's DINOv3ViT; is this the right source?")


def _joined(key: str, parts: Mapping[str, Tensor]) -> Tensor:
    """q, k and v as one; a bias that keys do not have is zero."""
    missing = [f'{name}_proj' for name in 'qkv' if name not in parts and (name != 'k' or key.endswith('weight'))]
    if missing:
        raise InputError(f'{key} needs q_proj, k_proj and v_proj, but {", ".join(missing)} is missing in the file')
    values = [parts.get(name, torch.zeros_like(parts['q'])) for name in 'qkv']
    if not values[0].dim() or len({x.shape for x in values}) > 1:
        shapes = ', '.join(f'{name} {tuple(x.shape)}' for name, x in zip('qkv', values))
        raise InputError(f'the projections that make {key!r} have different shapes: {shapes}; is the file whole?')
    return torch.cat(values)

"""Names of Hugging Face's RT-DETR with its own ResNet-vd, and of its D-FINE with HGNetv2, beside ours.

Those of ``RTDetrForObjectDetection`` and ``RTDetrV2ForObjectDetection`` are the same, but for a constant;
``DFineForObjectDetection`` has another backbone and other blocks in the neck, and more in the decoder.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ..errors import InputError
from . import dfine, hgnetv2
from .prefix_map import PrefixMap

_MOST_BLOCKS, _MOST_LEVELS, _MOST_LAYERS = 36, 8, 12

POINT_COUNTS = ('.encoder_attn.n_points_scale', '.encoder_attn.num_points_scale')
"""End of keys of RT-DETRv2 and D-FINE that hold no weights: one over the number of points, which the config gives."""

_LAYER = (
    ('self_attn.', 'self_attn.'),
    ('self_attn_layer_norm.', 'norm1.'),
    ('fc1.', 'linear1.'),
    ('fc2.', 'linear2.'),
)
_ENCODER_LAYER = (*_LAYER, ('final_layer_norm.', 'norm2.'))
_DECODER_LAYER = (
    *_LAYER,
    *((f'encoder_attn.{part}', f'cross_attn.{part}') for part in ('sampling_offsets.', 'attention_weights.')),
    *((f'encoder_attn.{part}', f'cross_attn.{part}') for part in ('value_proj.', 'output_proj.')),
    ('encoder_attn_layer_norm.', 'norm2.'),
    ('gateway.', 'gateway.'),
    ('final_layer_norm.', 'norm3.'),
)
_ELAN = {
    'conv1.': 'conv1.',
    'csp_rep1.': 'stages.0.0.',
    'conv2.': 'stages.0.1.',
    'csp_rep2.': 'stages.1.0.',
    'conv3.': 'stages.1.1.',
    'conv4.': 'conv2.',
}


def _backbone() -> Iterator[tuple[str, str]]:
    theirs, ours = 'model.backbone.model.', 'backbone.'
    for i in range(3):
        yield f'{theirs}embedder.embedder.{i}.convolution.', f'{ours}stem.{3 * i}.'
        yield f'{theirs}embedder.embedder.{i}.normalization.', f'{ours}stem.{3 * i + 1}.'
    for stage in range(4):
        their_stage, our_stage = f'{theirs}encoder.stages.{stage}.layers.', f'{ours}layer{stage + 1}.'
        for block in range(_MOST_BLOCKS):
            for i in range(3):
                yield f'{their_stage}{block}.layer.{i}.convolution.', f'{our_stage}{block}.conv{i + 1}.'
                yield f'{their_stage}{block}.layer.{i}.normalization.', f'{our_stage}{block}.bn{i + 1}.'
        # the first stage keeps its resolution: no pooling stands before its shortcut
        short, first = ('shortcut.', 0) if stage == 0 else ('shortcut.1.', 1)
        for i, part in enumerate(('convolution.', 'normalization.')):
            yield f'{their_stage}0.{short}{part}', f'{our_stage}0.downsample.{first + i}.'


def _encoder() -> Iterator[tuple[str, str]]:
    for level in range(_MOST_LEVELS):
        yield f'model.encoder_input_proj.{level}.0.', f'neck.input_proj.{level}.conv.'
        yield f'model.encoder_input_proj.{level}.1.', f'neck.input_proj.{level}.norm.'
        for layer in range(_MOST_LAYERS):
            for theirs, ours in _ENCODER_LAYER:
                prefix = f'encoder.{level}.layers.{layer}.'
                yield f'model.encoder.{prefix}{theirs}', f'neck.{prefix}{ours}'
    yield 'model.encoder.lateral_convs.', 'neck.lateral_convs.'


def _csp_fusion() -> Iterator[tuple[str, str]]:
    for part in ('fpn_blocks.', 'downsample_convs.', 'pan_blocks.'):
        yield f'model.encoder.{part}', f'neck.{part}'


def _elan_fusion() -> Iterator[tuple[str, str]]:
    for level in range(_MOST_LEVELS):
        for blocks in ('fpn_blocks', 'pan_blocks'):
            for theirs, ours in _ELAN.items():
                yield f'model.encoder.{blocks}.{level}.{theirs}', f'neck.{blocks}.{level}.{ours}'
        for i in range(2):
            yield f'model.encoder.downsample_convs.{level}.conv{i + 1}.', f'neck.downsample_convs.{level}.{i}.'


def _head() -> Iterator[tuple[str, str]]:
    for level in range(_MOST_LEVELS):
        yield f'model.decoder_input_proj.{level}.0.', f'bbox_head.input_proj.{level}.conv.'
        yield f'model.decoder_input_proj.{level}.1.', f'bbox_head.input_proj.{level}.norm.'
    yield 'model.enc_output.0.', 'bbox_head.query_selector.memory_proj.'
    yield 'model.enc_output.1.', 'bbox_head.query_selector.memory_norm.'
    yield 'model.enc_score_head.', 'bbox_head.query_selector.cls_head.'
    yield 'model.enc_bbox_head.', 'bbox_head.query_selector.bbox_head.'
    yield 'model.denoising_class_embed.', 'bbox_head.denoising.label_embedding.'
    yield 'model.decoder.query_pos_head.', 'bbox_head.decoder.query_pos_head.'
    yield 'model.decoder.class_embed.', 'bbox_head.decoder.cls_heads.'
    yield 'model.decoder.bbox_embed.', 'bbox_head.decoder.bbox_heads.'
    for layer in range(_MOST_LAYERS):
        for theirs, ours in _DECODER_LAYER:
            yield f'model.decoder.layers.{layer}.{theirs}', f'bbox_head.decoder.layers.{layer}.{ours}'


def _refinement() -> Iterator[tuple[str, str]]:
    yield 'model.decoder.pre_bbox_head.', 'bbox_head.decoder.initial_bbox_head.'
    for layer in range(_MOST_LAYERS):
        yield f'model.decoder.lqe_layers.{layer}.reg_conf.', f'bbox_head.decoder.quality_heads.{layer}.'
    for constant in dfine.CONSTANTS:
        yield f'model.decoder.{constant}', f'bbox_head.decoder.{constant}'


DETECTOR = PrefixMap([*_backbone(), *_encoder(), *_csp_fusion(), *_head()], "Hugging Face's RT-DETR")
DETECTOR_DFINE = PrefixMap(
    [
        *hgnetv2.backbone('model.backbone.model.', 'backbone.', hgnetv2.TRANSFORMERS),
        *_encoder(),
        *_elan_fusion(),
        *_head(),
        *_refinement(),
    ],
    "Hugging Face's D-FINE",
)
"""Their names as in files, except that q, k and v are still apart: see :func:`join_projections`."""


def detector(weights: Iterable[str]) -> PrefixMap:
    """Which of the two these keys belong to: a D-FINE is told by what judges the edges of its boxes."""
    return DETECTOR_DFINE if any('.lqe_layers.' in key for key in weights) else DETECTOR


def their_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names that their files have, q, k and v apart; the way back of :func:`file_names`.

    Raises:
        InputError: a key that they have no name for.
    """
    names = DETECTOR_DFINE if any('.quality_heads.' in key for key in weights) else DETECTOR
    return split_projections({names.to_theirs(key): value for key, value in weights.items()})


_NUMBERED_MLP = re.compile(r'\.mlp\.layers\.([01])\.')


def file_names(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under the names that files have, and the keys left out because they repeat another one.

    In memory, transformers 5 calls a few modules otherwise than the files that it reads and writes. The state dict of
    older versions holds the decoder's heads twice, at the top level and in the decoder.

    Raises:
        InputError: two keys stand for one parameter and their values differ.
    """
    named: dict[str, Tensor] = {}
    repeated = []
    for key, value in weights.items():
        name = _file_name(key)
        if name not in named:
            named[name] = value
        elif torch.equal(named[name], value):
            repeated.append(key)
        else:
            raise InputError(
                f'{key!r} and {name!r} stand for the same parameter but hold different values; '
                'save the model again with save_pretrained and convert that'
            )
    return named, repeated


def _file_name(key: str) -> str:
    if key.startswith(('class_embed.', 'bbox_embed.')):
        return f'model.decoder.{key}'
    key = key.replace('model.encoder.aifi.', 'model.encoder.encoder.')
    key = key.replace('.self_attn.o_proj.', '.self_attn.out_proj.').replace('.mlp.fc', '.fc')
    return _NUMBERED_MLP.sub(lambda match: f'.fc{int(match[1]) + 1}.', key)


_PROJECTION = re.compile(r'(.*\.self_attn\.)([qkv])_proj\.(weight|bias)')


def join_projections(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """q_proj, k_proj and v_proj, each (D, D) and (D,), as one in_proj_weight (3D, D) and in_proj_bias (3D,).

    Raises:
        InputError: one of the three is missing or of another shape, or k's weight is v's, as transformers' conversion
            of D-FINE-N once left it (huggingface/transformers#40253).
    """
    joined: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in weights.items():
        match = _PROJECTION.fullmatch(key)
        if match:
            parts[f'{match[1]}in_proj_{match[3]}'][match[2]] = value
        else:
            joined[key] = value
    for key, by_letter in parts.items():
        missing = [f'{letter}_proj' for letter in 'qkv' if letter not in by_letter]
        if missing:
            raise InputError(f'{key} needs q_proj, k_proj and v_proj, but {", ".join(missing)} is missing in the file')
        if by_letter['q'].dim() == 0 or not by_letter['q'].shape == by_letter['k'].shape == by_letter['v'].shape:
            shapes = ', '.join(f'{letter} {tuple(by_letter[letter].shape)}' for letter in 'qkv')
            raise InputError(f'the projections that make {key!r} have different shapes: {shapes}; is the file whole?')
        if key.endswith('weight') and torch.equal(by_letter['k'], by_letter['v']):
            raise InputError(
                f'k_proj and v_proj that make {key!r} hold the same numbers: the file was made by the '
                "faulty conversion of huggingface/transformers#40253; get a newer one, or convert the authors' own"
            )
        joined[key] = torch.cat([by_letter[letter] for letter in 'qkv'])
    return joined


_JOINED = re.compile(r'(.*\.self_attn\.)in_proj_(weight|bias)')


def split_projections(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back of :func:`join_projections`."""
    apart: dict[str, Tensor] = {}
    for key, value in weights.items():
        match = _JOINED.fullmatch(key)
        if match:
            apart.update({f'{match[1]}{q}_proj.{match[2]}': projection for q, projection in zip('qkv', value.chunk(3))})
        else:
            apart[key] = value
    return apart

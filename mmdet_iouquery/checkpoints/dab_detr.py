"""Names of the authors' DAB-DETR (IDEA-Research/DAB-DETR, ``models/DAB_DETR``) beside ours.

Ours is ``IoUQueryDABDETR`` with ``LearnedAnchors`` and the dense ``DABDecoder``; backbone, neck and encoder are
mmdet's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..errors import InputError
from .prefix_map import PrefixMap

_MOST_LAYERS = 12
_ENCODER = {
    'self_attn.': 'self_attn.attn.',
    'linear1.': 'ffn.layers.0.0.',
    'activation.': 'ffn.layers.0.1.',
    'linear2.': 'ffn.layers.1.',
    'norm1.': 'norms.0.',
    'norm2.': 'norms.1.',
}
_DECODER = {
    'sa_qcontent_proj.': 'self_attn.q_content.',
    'sa_qpos_proj.': 'self_attn.q_pos.',
    'sa_kcontent_proj.': 'self_attn.k_content.',
    'sa_kpos_proj.': 'self_attn.k_pos.',
    'sa_v_proj.': 'self_attn.value.',
    'self_attn.out_proj.': 'self_attn.out_proj.',
    'ca_qcontent_proj.': 'cross_attn.q_content.',
    'ca_qpos_proj.': 'cross_attn.q_pos.',
    'ca_qpos_sine_proj.': 'cross_attn.q_sine.',
    'ca_kcontent_proj.': 'cross_attn.k_content.',
    'ca_kpos_proj.': 'cross_attn.k_pos.',
    'ca_v_proj.': 'cross_attn.value.',
    'cross_attn.out_proj.': 'cross_attn.out_proj.',
    'linear1.': 'linear1.',
    'linear2.': 'linear2.',
    'activation.': 'act.',
    'norm1.': 'norm1.',
    'norm2.': 'norm2.',
    'norm3.': 'norm3.',
}


def _transformer(theirs: str) -> Iterator[tuple[str, str]]:
    for i in range(_MOST_LAYERS):
        for their_part, our_part in _ENCODER.items():
            yield f'{theirs}encoder.layers.{i}.{their_part}', f'encoder.layers.{i}.{our_part}'
        for their_part, our_part in _DECODER.items():
            yield f'{theirs}decoder.layers.{i}.{their_part}', f'decoder.layers.{i}.{our_part}'
        yield f'{theirs}decoder.bbox_embed.{i}.', f'decoder.bbox_heads.{i}.'
    yield f'{theirs}encoder.query_scale.', 'encoder.query_scale.'
    yield f'{theirs}decoder.norm.', 'decoder.norm.'
    yield f'{theirs}decoder.query_scale.', 'decoder.query_scale.'
    yield f'{theirs}decoder.ref_point_head.', 'decoder.query_pos_head.'
    yield f'{theirs}decoder.ref_anchor_head.', 'decoder.ref_hw_head.'
    yield f'{theirs}patterns.', 'query_selector.patterns.'


DETECTOR = PrefixMap(
    [
        ('backbone.0.body.', 'backbone.'),
        ('input_proj.', 'neck.convs.0.conv.'),
        ('class_embed.', 'decoder.cls_heads.0.'),
        ('refpoint_embed.', 'query_selector.anchors_unact.'),
        *_transformer('transformer.'),
    ],
    "the authors' DAB-DETR",
)
REPEATED = 'bbox_embed.'
"""Prefix of keys that stand for the same weights as those under ``transformer.decoder.``."""
_SHARED_HEAD = 'transformer.decoder.bbox_embed.layers.'


def file_names(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights without repetitions, a shared box head numbered 0; and the keys left out, each equal to one kept."""
    kept_as = {key: f'transformer.decoder.{key}' for key in weights if key.startswith(REPEATED)}
    repeated = [key for key, other in kept_as.items() if other in weights and torch.equal(weights[key], weights[other])]
    kept = {}
    for key, value in weights.items():
        if key not in repeated:
            kept[key.replace(_SHARED_HEAD, 'transformer.decoder.bbox_embed.0.layers.')] = value
    return kept, repeated


def split_anchors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names of the learned anchors, which hold centre and size apart.

    Raises:
        InputError: they have another shape than (Q, 4).
    """
    ours = dict(weights)
    anchors_unact = ours.pop('query_selector.anchors_unact.weight', None)
    if anchors_unact is not None:
        if anchors_unact.shape[1:] != (4,):
            raise InputError(
                f'refpoint_embed.weight has the shape {tuple(anchors_unact.shape)} and not (queries, 4), so the file '
                'is of no DAB-DETR that learns anchor boxes; name another file or --source'
            )
        ours['query_selector.xy_unact'], ours['query_selector.wh_unact'] = anchors_unact[:, :2], anchors_unact[:, 2:]
    return ours

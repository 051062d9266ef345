"""The authors' DAB-DETR files: every key has a place, and shared weights that a file holds twice are taken once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from hosts import host_config
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmdet_iouquery.checkpoints import convert
from mmdet_iouquery.checkpoints.convert import REPEATED, convert_accounted
from mmdet_iouquery.errors import InputError

KEYS = Path(__file__).resolve().parents[1] / 'data' / 'dab_transformer.keys.json'
DIMS, CLASSES, QUERIES = 64, 7, 30
DECODERS: dict[str, dict[str, Any]] = {
    'shared': {},
    'per_layer': {'share_bbox_head': False},
    'keep_query_pos': {'keep_query_pos': True},
}


def detector(variant: str) -> nn.Module:
    """The adapter of the authors' width in the goldens, with our parts."""
    attention, ffn = {'embed_dims': DIMS, 'num_heads': 4}, {'embed_dims': DIMS, 'feedforward_channels': 128}
    cfg = host_config('DABDETR', full_width=True, num_queries=QUERIES)
    cfg.neck.out_channels, cfg.positional_encoding.num_feats = DIMS, DIMS // 2
    layer = {'self_attn_cfg': attention, 'ffn_cfg': {**ffn, 'num_fcs': 2, 'act_cfg': {'type': 'PReLU'}}}
    cfg.update(type='IoUQueryDABDETR', encoder=ConfigDict(num_layers=2, layer_cfg=layer))
    cfg.bbox_head.update(num_classes=CLASSES, embed_dims=DIMS)
    cfg.query_selector = ConfigDict(type='LearnedAnchors')
    cfg.decoder = ConfigDict(type='DABDecoder', num_heads=4, feedforward_channels=128, **DECODERS[variant])
    return MODELS.build(cfg)


def authors_file(variant: str, fill: Callable[..., dict[str, Tensor]], backbone: list[str]) -> dict[str, Tensor]:
    """Weights under the authors' names: torchvision's ResNet, the transformer, the heads, some of them twice."""
    shapes = {f'transformer.{key}': shape for key, shape in json.loads(KEYS.read_text())[variant].items()}
    twice = {key: shape for key, shape in shapes.items() if key.startswith('transformer.decoder.bbox_embed.')}
    shapes.update({key.removeprefix('transformer.decoder.'): shape for key, shape in twice.items()})
    shapes.update({'class_embed.weight': [CLASSES, DIMS], 'class_embed.bias': [CLASSES]})
    shapes.update({'refpoint_embed.weight': [QUERIES, 4], 'input_proj.weight': [DIMS, 2048, 1, 1]})
    shapes['input_proj.bias'] = [DIMS]
    shapes.update({f'backbone.0.body.{key}': [1] for key in backbone})
    weights = fill(shapes)
    weights.update({key.removeprefix('transformer.decoder.'): weights[key] for key in twice})
    return weights


@pytest.mark.parametrize('variant', DECODERS)
def test_every_key_has_a_place(variant: str, fill: Callable[..., dict[str, Tensor]]) -> None:
    model = detector(variant)
    # torchvision's names of a ResNet are mmdet's, and the authors' frozen batch norms have no counters
    state = {k: v for k, v in model.backbone.state_dict().items() if not k.endswith('num_batches_tracked')}
    theirs = authors_file(variant, fill, list(state))
    theirs.update({f'backbone.0.body.{key}': value for key, value in state.items()})
    conversion = convert_accounted({'model': theirs}, 'dab_detr')
    num_heads = 6 * len(model.decoder.bbox_heads)
    assert {reason: len(keys) for reason, keys in conversion.dropped.items()} == {REPEATED: num_heads}
    assert conversion.num_joined == 0 and conversion.num_read == len(theirs)
    result = model.load_state_dict(conversion.weights, strict=True)
    assert not result.missing_keys and not result.unexpected_keys

    ours = model.state_dict()
    anchors = torch.cat([ours['query_selector.xy_unact'], ours['query_selector.wh_unact']], dim=1)
    assert torch.equal(anchors, theirs['refpoint_embed.weight'])
    assert torch.equal(ours['decoder.cls_heads.0.weight'], theirs['class_embed.weight'])
    last = 'layers.2.weight' if variant != 'per_layer' else '5.layers.2.weight'
    assert torch.equal(model.decoder.bbox_heads[-1].layers[2].weight, theirs[f'bbox_embed.{last}'])


def test_a_repetition_that_differs_is_named(fill: Callable[..., dict[str, Tensor]]) -> None:
    theirs = authors_file('shared', fill, [])
    theirs['bbox_embed.layers.1.bias'] = theirs['bbox_embed.layers.1.bias'] + 1
    with pytest.raises(InputError, match=r"'bbox_embed\.layers\.1\.bias'"):
        convert(theirs, 'dab_detr')


def test_an_unknown_key_is_named(fill: Callable[..., dict[str, Tensor]]) -> None:
    theirs = {**authors_file('shared', fill, []), 'transformer.decoder.layers.0.gate.weight': torch.zeros(2)}
    with pytest.raises(InputError, match=r"'transformer\.decoder\.layers\.0\.gate\.weight'"):
        convert(theirs, 'dab_detr')


def test_anchors_of_another_shape_are_named(fill: Callable[..., dict[str, Tensor]]) -> None:
    theirs = {**authors_file('shared', fill, []), 'refpoint_embed.weight': torch.zeros(300, 2)}
    with pytest.raises(InputError, match=r'refpoint_embed\.weight has the shape \(300, 2\) and not \(queries, 4\)'):
        convert(theirs, 'dab_detr')

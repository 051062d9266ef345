"""Parity with the authors' DAB-DETR transformer: its six variants, outputs and gradients."""

from __future__ import annotations

import json

import golden_formula as formula
import numpy as np
import pytest
import torch
from helpers import DATA, golden
from mmdet.models.layers import DABDetrTransformerEncoder
from tolerances import about
from torch import Tensor

from mmdet_iouquery.checkpoints import dab_detr
from mmdet_iouquery.core import sine_anchor_encoding
from mmdet_iouquery.models.decoders import DABDecoder, dab
from mmdet_iouquery.structures import Memory, Queries

VARIANTS = {
    'shared': {},
    'per_layer': {'share_bbox_head': False},
    'fix_elewise': {'query_scale': 'fix_elewise'},
    'cond_scalar': {'query_scale': 'cond_scalar'},
    'unmodulated': {'modulate_hw_attn': False},
    'keep_query_pos': {'keep_query_pos': True},
}
HEIGHT, WIDTH, DIMS = 9, 12, 64


def weights(variant: str) -> dict[str, dict[str, Tensor]]:
    """The authors' weights under our names, of encoder and decoder."""
    keys = json.loads((DATA / 'dab_transformer.keys.json').read_text())[variant]
    theirs = {f'transformer.{key}': torch.from_numpy(formula.tensor(key, tuple(shape))) for key, shape in keys.items()}
    named, _ = dab_detr.file_names(theirs)
    ours = {dab_detr.DETECTOR.to_ours(key): value for key, value in named.items()}
    return {
        part: {key[len(part) + 1 :]: value for key, value in ours.items() if key.startswith(f'{part}.')}
        for part in ('encoder', 'decoder')
    }


def encoded(state: dict[str, Tensor]) -> Memory:
    """The golden input through mmdet's encoder, which is the authors'."""
    attention = {'embed_dims': DIMS, 'num_heads': 4, 'dropout': 0.0}
    ffn = {'embed_dims': DIMS, 'feedforward_channels': 128, 'num_fcs': 2, 'act_cfg': {'type': 'PReLU'}}
    encoder = DABDetrTransformerEncoder(num_layers=2, layer_cfg={'self_attn_cfg': attention, 'ffn_cfg': ffn}).eval()
    encoder.load_state_dict(state, strict=True)
    scale = float(np.sqrt(DIMS * HEIGHT * WIDTH))
    source, position = (
        torch.from_numpy(formula.tensor(name, (2, DIMS, HEIGHT, WIDTH))).mul(scale).flatten(2).transpose(1, 2)
        for name in ('input.src', 'input.pos')
    )
    padding = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    padding[1, :, 8:] = True
    padding = padding.flatten(1)
    with torch.no_grad():
        tokens = encoder(query=source, query_pos=position, key_padding_mask=padding)
    return Memory(tokens, ((HEIGHT, WIDTH),), padding, position=position)


@pytest.mark.parametrize('variant', VARIANTS)
def test_equals_the_authors(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state, reference = weights(variant), golden('dab_transformer')
    decoder = DABDecoder(
        num_classes=5, embed_dims=DIMS, num_heads=4, feedforward_channels=128, **VARIANTS[variant]
    ).train()
    missing, unexpected = decoder.load_state_dict(state['decoder'], strict=False)
    assert unexpected == [] and set(missing) == {'cls_heads.0.weight', 'cls_heads.0.bias'}

    memory = encoded(state['encoder'])
    anchors = (2 * torch.from_numpy(formula.tensor('input.refpoints', (30, 4)))).requires_grad_()
    hidden: list[Tensor] = []
    references: list[Tensor] = []
    monkeypatch.setattr(
        dab,
        'sine_anchor_encoding',
        lambda boxes, *args, **kwargs: references.append(boxes) or sine_anchor_encoding(boxes, *args, **kwargs),
    )
    decoder.norm.register_forward_hook(lambda module, inputs, output: hidden.append(output.detach()))
    queries = Queries(torch.zeros(2, 30, DIMS), anchors.expand(2, -1, -1))
    boxes = decoder(queries, memory).boxes

    def close(ours: Tensor, name: str, tolerance: float = 1e-4) -> None:
        assert np.abs(ours.detach().numpy() - reference[f'{variant}/{name}']).max() < tolerance, name

    close(torch.stack(hidden), 'hs')
    close(boxes, 'boxes')
    close(torch.stack(references), 'references')
    # the golden gradients are those of the sum of all layers' boxes
    boxes.sum().backward()
    close(anchors.grad, 'grad_refpoints')
    norm = decoder.layers[-1].linear2.weight.grad.norm().item()
    assert norm == about(float(reference[f'{variant}/gradnorm_last_ffn']), 'reference sum')

    decoder.eval()
    with torch.no_grad():
        assert torch.equal(decoder(queries, memory).boxes[0], boxes[-1].detach())

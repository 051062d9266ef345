"""What is read of a cross-attention module is what the module used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import random_batch
from hosts import HOSTS, host_config
from mmdet.registry import MODELS
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.core import multi_scale_deformable_attention, sine_token_encoding
from mmdet_iouquery.models.hosts.cross_attention import attention_of, bind_inputs, cross_attentions, is_dense
from mmdet_iouquery.models.layers import ConcatenatedCrossAttention, DenseAttention

SIZE = (96, 128)


def calls_of(name: str, decoder: dict | None = None, **model: Any) -> list[tuple[nn.Module, dict[str, Any], Tensor]]:
    """Each cross-attention of a host's decoder with its inputs and output, in prediction, on a padded image."""
    cfg = host_config(name, **model)
    cfg.type = HOSTS[name].adapter
    if decoder is not None:
        cfg.decoder = decoder
    detector = MODELS.build(cfg).eval()
    detector.init_weights()
    calls = []

    def record(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
        calls.append((module, bind_inputs(module, args, kwargs), output))

    for module in cross_attentions(detector.decoder):
        module.register_forward_hook(record, with_kwargs=True)
    images, samples = random_batch([1], *SIZE, num_classes=80)
    samples[0].set_metainfo({'img_shape': (80, 100)})
    with torch.no_grad():
        detector.run_parts(detector.extract_feat(images), samples)
    return calls


def attended(module: Any, inputs: dict[str, Any], output: Tensor) -> tuple[Tensor, Tensor]:
    """What the module gave before its last projection's residual, from its weights as read, and as it was given."""
    count = (inputs.get('query') if 'query' in inputs else inputs['content']).shape[1]
    read = attention_of(module, inputs, torch.arange(count))
    value_of = next(getattr(module, name) for name in ('value_proj', 'v_proj', 'value') if hasattr(module, name))
    tokens = inputs['memory'].tokens if 'memory' in inputs else inputs.get('value', inputs.get('key'))
    tokens = inputs['tokens'] if tokens is None else tokens
    padding = inputs['memory'].padding if 'memory' in inputs else inputs.get('key_padding_mask')
    value = value_of(tokens)
    if isinstance(read, DenseAttention):
        heads = read.weights.shape[1]
        ours = (read.weights @ value.unflatten(-1, (heads, -1)).transpose(1, 2)).transpose(1, 2).flatten(2)
        ours = module.out_proj(ours)
    else:
        heads = read.weights.shape[2]
        value = value if padding is None else value.masked_fill(padding.unsqueeze(-1), 0.0)
        shapes = inputs['memory'].spatial_shapes if 'memory' in inputs else inputs['spatial_shapes'].tolist()
        points = read.num_points
        value = value.unflatten(-1, (heads, -1))
        ours = multi_scale_deformable_attention(value, shapes, read.locations, read.weights, num_points=points)
        ours = module.output_proj(ours)
    residual = type(module).__name__ in ('ConditionalAttention', 'MultiScaleDeformableAttention')
    return ours + inputs['query'] if residual else ours, output


@pytest.mark.parametrize('name', ['ConditionalDETR', 'DABDETR', 'DeformableDETR', 'DINO'])
@pytest.mark.parametrize('decoder', [None, 'dense', 'deformable'])
def test_weights_as_read_give_the_modules_output(name: str, decoder: str | None) -> None:
    part = {'type': 'DABDecoder', 'num_layers': 2, 'cross_attention': decoder} if decoder else None
    calls = calls_of(name, part, sigmoid=True)
    assert len(calls) == 2
    for call in calls:
        ours, theirs = attended(*call)
        assert torch.isfinite(theirs).all() and theirs.abs().max() > 1e-3
        torch.testing.assert_close(ours, theirs, **within(torch.float32))


def test_torchs_attention_as_read() -> None:
    """DETR: against the weights that torch's own module returns."""
    for module, inputs, _ in calls_of('DETR'):
        query, key = inputs['query'] + inputs['query_pos'], inputs['key'] + inputs['key_pos']
        some = torch.tensor([3, 0, 7])
        expected = module.attn(
            *(x.transpose(0, 1) for x in (query[:, some], key, key)),
            key_padding_mask=inputs['key_padding_mask'],
            average_attn_weights=False,
        )[1]
        read = attention_of(module, inputs, some)
        assert isinstance(read, DenseAttention) and is_dense(module)
        torch.testing.assert_close(read.weights, expected, **within('unit'))
        torch.testing.assert_close(read.weights.sum(-1), torch.ones(1, 8, 3))


def test_position_alone_peaks_at_the_anchor() -> None:
    """With identity projections a sine code is most like the code of its own place, whatever the content says."""
    dims, shapes = 32, ((8, 12),)
    module = ConcatenatedCrossAttention(dims, 1)
    for name in ('q_sine', 'k_pos'):
        nn.init.eye_(getattr(module, name).weight)
        nn.init.zeros_(getattr(module, name).bias)
    token_pos = sine_token_encoding(shapes, dims, temperature=20.0)
    where = torch.tensor([5, 40, 95])
    inputs = {
        'content': 10 * torch.randn(1, 3, dims),
        'query_pos': torch.randn(1, 3, dims),
        'query_sine': token_pos[:, where],
        'tokens': 10 * torch.randn(1, 96, dims),
        'token_pos': token_pos,
    }
    every = torch.arange(3)
    by_position = attention_of(module, inputs, every, content=False)
    assert torch.equal(by_position.weights[0, 0].argmax(-1), where)
    with_content = attention_of(module, inputs, every)
    assert not torch.equal(with_content.weights[0, 0].argmax(-1), where)
    other = {**inputs, 'tokens': torch.randn(1, 96, dims)}
    torch.testing.assert_close(attention_of(module, other, every, content=False).weights, by_position.weights)


def test_what_cant_be_read_is_said() -> None:
    with pytest.raises(ValueError, match='Linear is no cross-attention that can be read'):
        attention_of(nn.Linear(1, 1), {}, torch.arange(1))
    module, inputs, _ = calls_of('DINO')[0]
    assert not is_dense(module)
    with pytest.raises(ValueError, match='no attention by position alone'):
        attention_of(module, inputs, torch.arange(1), content=False)

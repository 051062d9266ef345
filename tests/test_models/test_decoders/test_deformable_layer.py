"""What a deformable decoder layer can be other than RT-DETR's: gate, activation, projections, first values."""

from __future__ import annotations

import math
from typing import Any

import golden_formula as formula
import numpy as np
import pytest
import torch
from helpers import golden
from torch import Tensor, nn

from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.layers import BoxPositionMLP, DeformableDecoderLayer, FusionGate
from mmdet_iouquery.structures import Memory

DIMS = 8


def layer_of(**settings: Any) -> DeformableDecoderLayer:
    return DeformableDecoderLayer(DIMS, 2, 16, 2, (3, 1), 0.0, **settings)


def inputs() -> tuple[Tensor, Tensor, Tensor, Memory]:
    content, position, boxes = torch.randn(2, 5, DIMS), torch.randn(2, 5, DIMS), torch.rand(2, 5, 4)
    return content, position, boxes, Memory(torch.randn(2, 30, DIMS), ((4, 6), (2, 3)))


def test_gate_equals_the_authors() -> None:
    """D-FINE's, on weights and inputs rebuilt from names."""
    gate, reference = FusionGate(16), golden('next_units')['gate']
    gate.load_state_dict({key: torch.from_numpy(formula.tensor(key, x.shape)) for key, x in gate.state_dict().items()})
    content, attended = (torch.from_numpy(formula.tensor(f'input.gate_{x}', (2, 3, 16)) * np.float32(4)) for x in 'ab')
    assert np.abs(gate(content, attended).detach().numpy() - reference).max() < 1e-5


def test_gate_starts_as_the_norm_of_the_mean() -> None:
    content, attended = torch.randn(2, 5, DIMS), torch.randn(2, 5, DIMS)
    expected = nn.functional.layer_norm((content + attended) / 2, (DIMS,))
    torch.testing.assert_close(FusionGate(DIMS)(content, attended), expected)


def test_a_gate_takes_the_place_of_the_second_norm() -> None:
    plain, gated = layer_of(), layer_of(fusion='gate')
    ours = {key for key in gated.state_dict() if key not in plain.state_dict()}
    assert ours == {f'gateway.{part}.{kind}' for part in ('gate', 'norm') for kind in ('weight', 'bias')}
    assert {key for key in plain.state_dict() if key not in gated.state_dict()} == {'norm2.weight', 'norm2.bias'}
    # a gate that keeps what was read alone, and the feed-forward network and projections at zero
    with torch.no_grad():
        gated.gateway.gate.bias.copy_(torch.tensor([-50.0] * DIMS + [50.0] * DIMS))
        gated.linear2.weight.zero_()
        gated.linear2.bias.zero_()
        gated.cross_attn.output_proj.weight.zero_()
        gated.cross_attn.output_proj.bias.copy_(torch.arange(DIMS))
    content = gated(*inputs(), None)
    expected = nn.functional.layer_norm(torch.arange(DIMS).float(), (DIMS,))
    # two norms add an eps of 1e-5 each
    torch.testing.assert_close(content, expected.expand_as(content), rtol=0, atol=1e-4)


def test_activation_is_what_is_asked_for() -> None:
    silu, relu = layer_of(act_cfg={'type': 'SiLU'}), layer_of()
    relu.load_state_dict(silu.state_dict())
    hidden = []
    for layer in (silu, relu):
        layer.linear1.register_forward_hook(lambda _, __, output: hidden.append(output))
        layer.linear2.register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
        given = inputs()
        layer(*given, None)
    torch.testing.assert_close(hidden[1], nn.functional.silu(hidden[0]))
    torch.testing.assert_close(hidden[3], hidden[2].clamp(min=0))


def test_xavier_is_for_the_feed_forward_networks_weights() -> None:
    xavier, default = (DeformableDecoderLayer(64, 2, 256, 1, 1, 0.0, ffn_init=name) for name in ('xavier', 'default'))
    bound = math.sqrt(6 / (64 + 256))
    for weight in (xavier.linear1.weight, xavier.linear2.weight):
        assert 0.99 * bound < weight.abs().max() <= bound
    for linear in (default.linear1, default.linear2):
        own = 1 / math.sqrt(linear.in_features)
        assert 0.99 * own < linear.weight.abs().max() <= own


def test_without_projections_the_layer_has_none() -> None:
    keys = layer_of(project_values=False).state_dict()
    assert not any('_proj' in key for key in keys if key.startswith('cross_attn'))
    assert any(key.startswith('cross_attn') for key in keys)


def test_norms_and_feed_forward_network_are_what_is_asked_for() -> None:
    """A layer of DEIMv2's, read and gated by hand."""
    layer = layer_of(fusion='gate', norm='RMS', ffn='swiglu', ffn_init='xavier', project_values=False)
    assert not any(isinstance(module, nn.LayerNorm) for module in layer.modules())
    scales = (layer.norm1, layer.gateway.norm, layer.norm3)
    for module in scales:
        nn.init.uniform_(module.weight, 0.5, 1.5)
    nn.init.normal_(layer.gateway.gate.weight)
    content, position, boxes, memory = inputs()

    def rms(x: Tensor, scale: nn.Module) -> Tensor:
        return x * x.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt() * scale.weight

    first = rms(content + layer.self_attn(content, position), scales[0])
    read = layer.cross_attn(first + position, boxes, memory)
    keep, take = layer.gateway.gate(torch.cat([first, read], -1)).sigmoid().split(DIMS, -1)
    gated = rms(keep * first + take * read, scales[1])
    a, b = layer.swiglu.w12(gated).split(8, -1)  # half of 16
    expected = rms(gated + layer.swiglu.w3(a * a.sigmoid() * b), scales[2])
    torch.testing.assert_close(layer(content, position, boxes, memory, None), expected)
    plain = layer_of(norm='RMS', ffn='mlp')
    assert {key for key in plain.state_dict() if 'norm' in key} == {f'norm{i}.weight' for i in (1, 2, 3)}


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'norm': 'BN'}, r"norm must be one of \['LN', 'RMS'\], got 'BN'"),
        ({'ffn': 'glu'}, r"ffn must be one of \['mlp', 'swiglu'\], got 'glu'"),
        ({'fusion': 'sum'}, r"fusion must be one of \['add', 'gate'\], got 'sum'"),
        ({'ffn_init': 'zero'}, r"ffn_init must be one of \['default', 'xavier'\], got 'zero'"),
        ({'project_values': 1}, 'project_values must be True or False, got 1'),
        ({'act_cfg': 'SiLU'}, r"act_cfg must be a dict, such as dict\(name=value\), or None, got 'SiLU'"),
    ],
)
def test_bad_layer_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        layer_of(**settings)


def test_half_of_an_odd_number_of_features_is_refused() -> None:
    with pytest.raises(InputError, match=r'must be even .* got 15: name 16$'):
        DeformableDecoderLayer(DIMS, 2, 15, 1, 1, 0.0, ffn='swiglu')


def test_position_codes_are_held_where_asked() -> None:
    boxes = torch.rand(3, 4)
    free, held = BoxPositionMLP(DIMS), BoxPositionMLP(DIMS, clamp=0.1)
    held.load_state_dict(free.state_dict())
    codes = free(boxes)
    assert codes.abs().max() > 0.1
    torch.testing.assert_close(held(boxes), codes.clamp(-0.1, 0.1))


def test_position_codes_of_three_layers_with_silu() -> None:
    """DEIM's on RT-DETRv2: 4 to D to D to D, the first two Xavier-uniform, the last as PyTorch has it."""
    head = BoxPositionMLP(64, hidden_dims=64, num_layers=3, act_cfg={'type': 'SiLU'})
    first, second, third = head.layers
    assert [layer.weight.shape for layer in head.layers] == [(64, 4), (64, 64), (64, 64)]
    for layer, bound in ((first, math.sqrt(6 / 68)), (second, math.sqrt(6 / 128)), (third, 1 / 8)):
        assert 0.97 * bound < layer.weight.abs().max() <= bound
    last = BoxPositionMLP(64, hidden_dims=64, num_layers=3, num_xavier=3).layers[2].weight
    assert 0.97 * math.sqrt(6 / 128) < last.abs().max() <= math.sqrt(6 / 128)
    boxes, silu = torch.rand(3, 4), nn.functional.silu
    torch.testing.assert_close(head(boxes), third(silu(second(silu(first(boxes))))))

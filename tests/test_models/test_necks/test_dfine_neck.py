"""The hybrid encoder with D-FINE's blocks, and the choices that make it so."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.necks.aifi import AIFILayer
from mmdet_iouquery.models.necks.fusion import ELANFusion, Fusion

D_FINE = {'fusion': 'elan', 'downsample': 'separable', 'lateral_act': False}
SIZES = {  # maps, width, feed-forward width, expansion, RepVGG blocks; parameters of the authors' code
    'n': ((512, 1024), 128, 512, 0.34, 2, 703_824),
    's': ((256, 512, 1024), 256, 1024, 0.5, 1, 4_021_504),
    'm': ((384, 768, 1536), 256, 1024, 1.0, 2, 7_799_040),
    'x': ((512, 1024, 2048), 384, 2048, 1.0, 3, 20_700_032),
}


def evaluated(cfg: dict[str, object]) -> nn.Module:
    """In double precision, with norms as after a training: nothing is 0 or 1."""
    model = MODELS.build(cfg).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def build(**kwargs: object) -> nn.Module:
    config = {'in_channels': (8, 12), 'out_channels': 8, 'num_encoder_layers': 0, 'expansion': 0.9, **D_FINE, **kwargs}
    return evaluated({'type': 'HybridEncoder', **config})


def maps(*sizes: tuple[int, int]) -> list[Tensor]:
    return [torch.randn(2, channels, *size, dtype=torch.float64) for channels, size in zip((8, 12), sizes)]


def conv(x: Tensor, weights: dict[str, Tensor], name: str, **kwargs: int) -> Tensor:
    """Convolution and norm."""
    weight, *norm = (
        weights[f'{name}.{key}']
        for key in ('conv.weight', 'norm.running_mean', 'norm.running_var', 'norm.weight', 'norm.bias')
    )
    return F.batch_norm(F.conv2d(x, weight, padding=weight.shape[-1] // 2, **kwargs), *norm)


def csp(x: Tensor, weights: dict[str, Tensor], name: str, num_blocks: int) -> Tensor:
    y = F.silu(conv(x, weights, f'{name}.conv1'))
    if f'{name}.conv2.conv.weight' in weights:
        kept = F.silu(conv(x, weights, f'{name}.conv2'))
    else:
        kept, y = y.chunk(2, dim=1)
    for i in range(num_blocks):
        block = f'{name}.bottlenecks.{i}'
        y = F.silu(conv(y, weights, f'{block}.conv1') + conv(y, weights, f'{block}.conv2'))
    return y + kept


def elan(x: Tensor, weights: dict[str, Tensor], name: str, num_blocks: int) -> Tensor:
    u, v = F.silu(conv(x, weights, f'{name}.conv1')).chunk(2, dim=1)
    results, y = [], v
    for i in range(2):
        y = csp(y, weights, f'{name}.stages.{i}.0', num_blocks)
        if f'{name}.stages.{i}.1.conv.weight' in weights:
            y = F.silu(conv(y, weights, f'{name}.stages.{i}.1'))
        results.append(y)
    p, q = results
    return F.silu(conv(torch.cat([u, v, p, q], dim=1), weights, f'{name}.conv2'))


@pytest.mark.parametrize('sizes', [((8, 12), (4, 6)), ((7, 5), (4, 3))], ids=['even', 'odd'])
def test_is_what_its_formula_says(sizes: tuple) -> None:
    model, inputs = build(num_fusion_blocks=2), maps(*sizes)
    weights = model.state_dict()
    assert weights['fpn_blocks.0.stages.0.1.conv.weight'].shape == (3, 3, 3, 3)  # 0.9 * 8 / 2, rounded down
    fine, coarse = (conv(x, weights, f'input_proj.{i}') for i, x in enumerate(inputs))
    coarse = conv(coarse, weights, 'lateral_convs.0')
    enlarged = F.interpolate(coarse, size=fine.shape[2:], mode='nearest')
    up = elan(torch.cat([enlarged, fine], dim=1), weights, 'fpn_blocks.0', 2)
    down = conv(conv(up, weights, 'downsample_convs.0.0'), weights, 'downsample_convs.0.1', stride=2, groups=8)
    expected = up, elan(torch.cat([down, coarse], dim=1), weights, 'pan_blocks.0', 2)
    for actual, by_formula in zip(model(inputs), expected):
        torch.testing.assert_close(actual, by_formula, **within(torch.float64))


@pytest.mark.parametrize('tail', [True, False])
@pytest.mark.parametrize('sizes', [((8, 12), (4, 6)), ((7, 5), (4, 3))], ids=['even', 'odd'])
def test_deimv2s_is_what_its_formula_says(sizes: tuple, tail: bool) -> None:
    """Sums, one convolution in a CSP block, with and without a tail, and no projection of a map of equal width."""
    model = build(num_fusion_blocks=2, csp='one_conv', elan_tail=tail, join='sum', project='unequal')
    inputs, weights = maps(*sizes), model.state_dict()
    assert not any(key.startswith('input_proj.0') for key in weights)
    assert weights['fpn_blocks.0.stages.1.0.conv1.conv.weight'].shape == (6, 3, 1, 1)
    assert ('fpn_blocks.0.stages.0.1.conv.weight' in weights) == tail
    fine, coarse = inputs[0], conv(inputs[1], weights, 'input_proj.1')
    coarse = conv(coarse, weights, 'lateral_convs.0')
    up = elan(fine + F.interpolate(coarse, size=fine.shape[2:], mode='nearest'), weights, 'fpn_blocks.0', 2)
    down = conv(conv(up, weights, 'downsample_convs.0.0'), weights, 'downsample_convs.0.1', stride=2, groups=8)
    expected = up, elan(down + coarse, weights, 'pan_blocks.0', 2)
    for actual, by_formula in zip(model(inputs), expected):
        torch.testing.assert_close(actual, by_formula, **within(torch.float64))


@pytest.mark.parametrize('size', SIZES)
def test_has_as_many_parameters_as_the_authors(size: str) -> None:
    channels, width, feedforward, expansion, num_blocks, expected = SIZES[size]
    with torch.device('meta'):
        model = MODELS.build(
            {
                'type': 'HybridEncoder',
                'in_channels': channels,
                'out_channels': width,
                'feedforward_channels': feedforward,
                'expansion': expansion,
                'num_fusion_blocks': num_blocks,
                **D_FINE,
            }
        )
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize('option', D_FINE)
def test_each_choice_can_be_made_alone(option: str) -> None:
    """Of D-FINE's three, one at a time is RT-DETR's instead, and what is named so has another result."""
    rtdetrs = {'fusion': 'csp', 'downsample': 'conv', 'lateral_act': True}
    inputs, model = maps((8, 12), (4, 6)), build()
    other = build(**{option: rtdetrs[option]})
    shared = {key: value for key, value in model.state_dict().items() if key in other.state_dict()}
    changed = {'fusion': ('fpn_blocks', 'pan_blocks'), 'downsample': ('downsample_convs',), 'lateral_act': ()}[option]
    if not changed:
        assert shared.keys() == other.state_dict().keys() == model.state_dict().keys()
    other.load_state_dict({key: value for key, value in shared.items() if not key.startswith(changed)}, strict=False)
    fine, coarse = model(inputs)
    other_fine, other_coarse = other(inputs)
    assert torch.equal(fine, other_fine) == (option == 'downsample')
    assert not torch.equal(coarse, other_coarse)


@pytest.mark.parametrize('kind', [Fusion, ELANFusion])
def test_a_sum_is_both_maps_side_by_side_with_equal_weights(kind: type) -> None:
    joined = kind(16, 8, 1, 0.9, {'type': 'BN'}, {'type': 'SiLU'}).double().eval()
    summed = kind(8, 8, 1, 0.9, {'type': 'BN'}, {'type': 'SiLU'}, 'sum').double().eval()
    weights = summed.state_dict()
    for key in ('conv1.conv.weight', 'conv2.conv.weight'):
        if weights[key].shape[1] == 8 and joined.state_dict()[key].shape[1] == 16:
            weights[key] = weights[key].repeat(1, 2, 1, 1)
    joined.load_state_dict(weights)
    maps = torch.randn(2, 8, 2, 3, dtype=torch.float64), torch.randn(2, 8, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(summed(*maps), joined(*maps), **within(torch.float64))
    assert build(join='sum').pan_blocks[0].conv1.conv.in_channels == 8


def test_activation_of_the_attention_layer() -> None:
    """By default GELU, or what is named."""
    tokens, position = torch.randn(2, 6, 8), torch.randn(6, 8)
    for name, act in (('GELU', F.gelu), ('SiLU', F.silu)):
        layer = AIFILayer(8, 2, 16, 0.0, {'type': name})
        attended = layer.norm1(tokens + layer.self_attn(tokens, position))
        expected = layer.norm2(attended + layer.linear2(act(layer.linear1(attended))))
        torch.testing.assert_close(layer(tokens, position), expected, **within(torch.float32))
    for given, name in ((None, 'GELU'), ({'type': 'SiLU'}, 'SiLU')):
        model = build(num_encoder_layers=1, encoder_act_cfg=given)
        assert type(model.encoder[0].layers[0].act).__name__ == name


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'fusion': 'pan'}, r"fusion must be one of \['csp', 'elan'\], got 'pan'"),
        ({'csp': 'three_conv'}, r"csp must be one of \['two_conv', 'one_conv'\], got 'three_conv'"),
        ({'elan_tail': 0}, 'elan_tail must be True or False, got 0'),
        ({'project': True}, r"project must be one of \['all', 'unequal'\], got True"),
        (
            {'fusion': 'csp', 'csp': 'one_conv'},
            r"^csp='one_conv' and elan_tail=True are choices of fusion='elan', and fusion is 'csp': set fusion='elan', "
            'or leave them out$',
        ),
        ({'join': 'mean'}, r"join must be one of \['cat', 'sum'\], got 'mean'"),
        ({'downsample': 'pool'}, r"downsample must be one of \['conv', 'separable'\], got 'pool'"),
        ({'lateral_act': 'SiLU'}, "lateral_act must be True or False, got 'SiLU'"),
        ({'expansion': 0.2}, r'expansion must be a number of at least 0.25, got 0.2'),
    ],
)
def test_wrong_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**kwargs)

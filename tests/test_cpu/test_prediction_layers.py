"""Faster convolutions and linear layers compute what torch's do."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from tolerances import within
from torch import nn

from mmdet_iouquery import compat, prepare_for_inference
from mmdet_iouquery.compat import native
from mmdet_iouquery.cpu.convolution import filtered
from mmdet_iouquery.cpu.prediction import NeighboursMaxPool2d, PackedConv2d, PackedLinear, accelerate_prediction


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('size', [(8, 8), (5, 7), (1, 1), (2, 13)])
def test_winograd_equals_the_convolution(size: tuple[int, int], bias: bool) -> None:
    conv = nn.Conv2d(6, 5, 3, padding=1, bias=bias)
    x = torch.randn(2, 6, *size)
    expected = F.conv2d(x.double(), conv.weight.double(), None if bias is False else conv.bias.double(), padding=1)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        with torch.no_grad():
            actual = filtered(conv)(given)
        # single precision; the transforms lose a digit at most
        assert (actual - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max().item())
    double = filtered(copy.deepcopy(conv).double().requires_grad_(False))
    torch.testing.assert_close(double(x.double()), expected, **within(torch.float64))
    # on another device than it was prepared on it is torch's own
    with torch.no_grad():
        assert filtered(conv).to('meta')(x.to('meta')).shape == expected.shape


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    'activation', [nn.Identity(), nn.ReLU(), nn.SiLU(), nn.Hardtanh(0.25, math.inf), nn.Hardtanh(-math.inf, -0.25)]
)
def test_packed_equals_convolution_and_activation(activation: nn.Module, dtype: torch.dtype) -> None:
    if not compat.packs_weights(dtype):
        pytest.skip(f'this torch has no packed convolutions in {dtype}')
    conv = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2).to(dtype)
    packed = nn.Sequential(conv, activation)
    accelerate_prediction(packed)
    assert [type(part) for part in packed] == [PackedConv2d, nn.Identity]
    with torch.no_grad():
        for size in ((9, 9), (12, 7), (9, 9)):  # packed for each size
            x = torch.randn(2, 8, *size).to(dtype)
            expected = activation(conv(x))
            # fused, the activation comes before the rounding to the type, and not after
            torch.testing.assert_close(packed(x), expected, **within(dtype, roundings=4))
    again = copy.deepcopy(packed)
    torch.testing.assert_close(again(x), packed(x))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('width', [1, 4, 80, 256])
def test_packed_equals_linear(width: int, bias: bool, dtype: torch.dtype) -> None:
    """For any number of rows, laid out in any way, and none."""
    if not compat.packs_weights(dtype):
        pytest.skip(f'this torch has no packed linear layers in {dtype}')
    linear = nn.Linear(24, width, bias=bias).to(dtype)
    packed = PackedLinear(linear)
    with torch.no_grad():
        for x in (
            torch.randn(2, 9, 24),
            torch.randn(24, 50).t(),
            torch.randn(24),
            torch.randn(2, 9, 24),
            torch.empty(0, 24),
        ):
            expected = F.linear(x.to(dtype).double(), linear.weight.double(), linear.bias.double() if bias else None)
            actual = packed(x.to(dtype))
            assert actual.dtype == dtype
            torch.testing.assert_close(actual.double(), expected, **within(dtype, roundings=4))
        x = torch.randn(9, 24, dtype=dtype)
        torch.testing.assert_close(copy.deepcopy(packed)(x), packed(x))
        other = torch.bfloat16 if dtype == torch.float32 else torch.float32
        with torch.autocast('cpu', torch.bfloat16):  # where inputs of another type may come
            assert packed(torch.randn(3, 24, dtype=other)).dtype == torch.bfloat16


def test_activations_are_taken_over_where_they_follow_at_once() -> None:
    """By a convolution that can, in a Sequential; the result is the same either way."""
    if not compat.packs_weights(torch.float32):
        pytest.skip('this torch has no packed convolutions')
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.SiLU(inplace=True),
        nn.Conv2d(8, 128, 1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(128, 8, 1),
        nn.Hardtanh(-0.125, 0.25),
    ).eval()
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        prepared = prepare_for_inference(model)
        torch.testing.assert_close(prepared(x), model(x), **within(torch.float32))
    kinds = [type(part).__name__ for part in prepared]
    assert kinds == [
        *('PackedConv2d', 'Identity', 'Identity'),
        *('PackedConv2d', 'MaxPool2d', 'ReLU'),
        *('WinogradConv2d', 'ReLU'),
        *('PackedConv2d', 'Identity'),
    ]
    taken_over = [type(prepared[i].activation) for i in (0, 3, 8)]
    assert taken_over == [nn.SiLU, nn.Identity, nn.Hardtanh]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_max_pools_of_neighbours(dtype: torch.dtype, layout: torch.memory_format) -> None:
    pools = nn.Sequential(nn.MaxPool2d(2, stride=1), nn.MaxPool2d(2), nn.MaxPool2d(2, stride=1, padding=1))
    faster = copy.deepcopy(pools)
    accelerate_prediction(faster)
    assert [type(pool) for pool in faster] == [NeighboursMaxPool2d, nn.MaxPool2d, nn.MaxPool2d]
    x = torch.randn(2, 6, 9, 12).to(dtype).contiguous(memory_format=layout)
    x[0, 0, 3, 4], x[0, 1, 8, 11] = math.nan, -math.inf
    torch.testing.assert_close(faster[0](x), pools[0](x), rtol=0, atol=0, equal_nan=True)
    assert faster[0](x).is_contiguous(memory_format=layout)


def test_without_packed_weights_torchs_own_layers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    compat.packs_weights.cache_clear()
    monkeypatch.setattr(native, 'pack_convolution', lambda *_: torch.ops.mkldnn.there_is_no_such_operator())
    assert not compat.packs_weights(torch.float32)
    prepared = prepare_for_inference(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(8, 8)))
    assert [type(part) for part in prepared] == [nn.Conv2d, nn.ReLU, nn.Linear]
    compat.packs_weights.cache_clear()


def test_subclasses_and_other_paddings_are_left_alone() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    class Halved(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) / 2

    others = nn.Conv2d(8, 8, 3, padding='same'), nn.Conv2d(8, 8, 3, padding=1, padding_mode='reflect')
    prepared = prepare_for_inference(nn.Sequential(Doubled(128, 128, 3, padding=1), Halved(8, 8), *others))
    assert [type(part) for part in prepared] == [Doubled, Halved, nn.Conv2d, nn.Conv2d]


def test_gradients_for_the_images_are_torchs_own() -> None:
    """As for a map of what a detection depends on: the weights ask for none, the image does."""
    model = nn.Sequential(
        nn.Conv2d(3, 128, 1), nn.SiLU(), nn.Conv2d(128, 128, 3, padding=1), nn.Flatten(2), nn.Linear(36, 5)
    ).eval()
    x = torch.randn(1, 3, 6, 6, requires_grad=True)
    ours, expected = (torch.autograd.grad(net(x).square().sum(), x)[0] for net in (prepare_for_inference(model), model))
    torch.testing.assert_close(ours, expected, **within(torch.float32))

"""Linear layers and attention by oneDNN's products: what torch's give, values and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_iouquery.cpu import accelerate_training, products, restore
from mmdet_iouquery.cpu.products import ProductAttention, ProductConv2d, ProductLinear, is_offered
from mmdet_iouquery.models.backbones.vit import UnbiasedKeys

with_onednn = pytest.mark.skipif(not is_offered(), reason='no such products here, or no faster ones')


def close(actual: Tensor, exact: Tensor) -> bool:
    """To single precision's rounding of sums of some hundred numbers."""
    return bool((actual.double() - exact).abs().max() <= 3e-6 * exact.abs().max())


class Calls:
    """Counts those of a function of autograd."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.number, forward = 0, getattr(products, name).forward

        def counted(*arguments: Any) -> Tensor:
            self.number += 1
            return forward(*arguments)

        monkeypatch.setattr(getattr(products, name), 'forward', staticmethod(counted))


@with_onednn
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('frozen', ['none', 'input', 'weight'])
def test_a_linear_layer_is_trained_as_torchs(bias: bool, frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(96, 160, bias=bias))
    accelerate_training(layer)
    (linear,) = layer
    assert type(linear) is ProductLinear
    x, grad = torch.randn(2, 400, 96, requires_grad=frozen != 'input'), torch.randn(2, 400, 160)
    linear.weight.requires_grad_(frozen != 'weight')
    calls = Calls(monkeypatch, '_Linear')
    y = layer(x)
    y.backward(grad)
    exact = [p.detach().double().requires_grad_() for p in (x, *linear.parameters())]
    z = F.linear(*exact)
    z.backward(grad.double())
    assert calls.number == 1 and close(y, z)
    for ours, theirs in zip((x, *linear.parameters()), exact):
        assert (ours.grad is None) != ours.requires_grad
        assert ours.grad is None or close(ours.grad, theirs.grad)
    restore(layer)
    assert type(layer[0]) is nn.Linear


@with_onednn
def test_a_projection_without_a_bias_of_keys_is_trained_as_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    (projection,) = layer = nn.Sequential(UnbiasedKeys(96))
    plain = copy.deepcopy(projection).double()
    accelerate_training(layer)
    x, grad = torch.randn(2, 400, 96), torch.randn(2, 400, 3 * 96)
    calls = Calls(monkeypatch, '_Linear')
    y, z = layer(x), plain(x.double())
    y.backward(grad), z.backward(grad.double())
    assert calls.number == 1 and close(y, z)
    assert close(projection.weight.grad, plain.weight.grad) and close(projection.bias.grad, plain.bias.grad)
    assert not projection.bias.grad[96 : 2 * 96].any() and projection.bias.grad[:96].any()
    restore(layer)
    assert type(layer[0]) is UnbiasedKeys


@with_onednn
@pytest.mark.parametrize('bias', [True, False])
def test_a_convolution_of_single_pixels_is_trained_as_torchs(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    convs = nn.Sequential(
        nn.Conv2d(32, 64, 1, bias=bias), nn.Conv2d(64, 64, 1, stride=2), nn.Conv2d(64, 64, 1, groups=2)
    )
    accelerate_training(convs)
    assert [type(conv) for conv in convs] == [ProductConv2d, nn.Conv2d, nn.Conv2d]
    conv, calls = convs[0], Calls(monkeypatch, '_Linear')
    x = torch.randn(2, 32, 60, 70).contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn(2, 64, 60, 70)
    y = conv(x)
    y.backward(grad)
    exact = [p.detach().double().requires_grad_() for p in (x, *conv.parameters())]
    z = F.conv2d(*exact)
    z.backward(grad.double())
    assert calls.number == 1 and close(y, z) and y.is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip((x, *conv.parameters()), exact):
        assert ours.grad.shape == theirs.shape and close(ours.grad, theirs.grad)
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
    conv(x.detach().contiguous())  # laid out otherwise
    conv.eval()(x)
    assert calls.number == 1
    restore(convs)
    assert {type(conv) for conv in convs} == {nn.Conv2d}


@with_onednn
def test_a_linear_layer_is_torchs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, calls = ProductLinear(96, 160), Calls(monkeypatch, '_Linear')
    many = torch.randn(800, 96)
    layer(many[:10])
    layer.double()(many.double())
    layer.float()
    with torch.autocast('cpu', torch.bfloat16):
        layer(many)
    with torch.no_grad():
        layer(many)
    torch.jit.trace(layer, many)
    layer.eval()(many)
    assert calls.number == 0
    layer.train()(many)
    assert calls.number == 1


@with_onednn
@pytest.mark.parametrize('queries', [600, 70])
@pytest.mark.parametrize('channels', [(16, 16), (32, 16)])
def test_attention_of_many_tokens_is_torchs(
    queries: int, channels: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    of_key, of_value = channels
    # as a projection gives them: tokens before heads
    shapes = [(2, n, 3, d) for n, d in ((queries, of_key), (600, of_key), (600, of_value))]
    tokens = [torch.randn(shape, requires_grad=True) for shape in shapes]
    grad = torch.randn(2, 3, queries, of_value)
    calls = Calls(monkeypatch, '_Attention')
    y = ProductAttention()(*(x.transpose(1, 2) for x in tokens))
    exact = [x.detach().double().requires_grad_() for x in tokens]
    z = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in exact))
    assert calls.number == 1 and close(y, z)
    for actual, expected in zip(torch.autograd.grad(y, tokens, grad), torch.autograd.grad(z, exact, grad.double())):
        assert actual.shape == expected.shape and close(actual, expected)


@pytest.mark.parametrize('masked', [True, False])
@pytest.mark.parametrize('channels', [(8, 8), (14, 14), (6, 12), (8, 32)])
def test_attention_of_narrow_heads_is_torchs(channels: tuple[int, int], masked: bool) -> None:
    torch.manual_seed(0)
    of_key, of_value = channels
    inputs = [torch.randn(2, 3, n, d, requires_grad=True) for n, d in ((7, of_key), (9, of_key), (9, of_value))]
    allowed = torch.rand(7, 9) > 0.3 if masked else None
    exact = [x.detach().double().requires_grad_() for x in inputs]
    y, z = ProductAttention()(*inputs, allowed), F.scaled_dot_product_attention(*exact, attn_mask=allowed)
    assert y.shape == z.shape and close(y, z)
    grad = torch.randn(z.shape)
    for actual, expected in zip(torch.autograd.grad(y, inputs, grad), torch.autograd.grad(z, exact, grad.double())):
        assert actual.shape == expected.shape and close(actual, expected)


@with_onednn
def test_attention_is_torchs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, x = Calls(monkeypatch, '_Attention'), torch.randn(1, 2, 600, 8)
    attention = ProductAttention()
    attention(x[:, :, :500], x[:, :, :500], x[:, :, :500])
    attention(x, x, x, torch.ones(600, 600, dtype=torch.bool))
    attention(x.double(), x.double(), x.double())
    ProductAttention(0.5)(x, x, x)
    assert calls.number == 0
    ProductAttention(0.5).eval()(x, x, x)
    assert calls.number == 1


@pytest.mark.parametrize('mask', ['none', 'between queries', 'padding'])
def test_attention_of_halves_is_that_of_single_precision(mask: str) -> None:
    """To bfloat16's rounding; what may not be read has no part."""
    queries, keys = 12, 12 if mask == 'between queries' else 9
    inputs = [torch.randn(2, 4, n, 8).bfloat16() for n in (queries, keys, keys)]
    allowed = None
    if mask == 'between queries':
        allowed = torch.ones(queries, queries, dtype=torch.bool)
        allowed[5:, :5] = False
    elif mask == 'padding':
        allowed = torch.ones(2, 1, 1, keys, dtype=torch.bool)
        allowed[1, ..., 6:] = False
    y = ProductAttention()(*inputs, allowed)
    expected = F.scaled_dot_product_attention(*(x.double() for x in inputs), attn_mask=allowed)
    assert y.dtype == torch.bfloat16
    # numbers of about 1, their sums rounded to 8 binary digits a few times
    assert (y.double() - expected).abs().max() < 0.05
    if mask == 'padding':
        others = inputs[2].clone()
        others[1, :, 6:] = 100.0
        assert torch.equal(ProductAttention()(*inputs[:2], others, allowed), y)

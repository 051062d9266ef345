"""Convolutions trained with fewer multiplications are torch's convolutions."""

from __future__ import annotations

import copy

import pytest
import torch
from mmcv.cnn import build_conv_layer
from torch import Tensor, nn

from mmdet_iouquery.core import winograd as core
from mmdet_iouquery.models.layers import WinogradConv2d, can_winograd, winograd_conv

PLAIN = {'in_channels': 128, 'out_channels': 128, 'kernel_size': 3, 'padding': 1}


@pytest.mark.parametrize(
    ('changes', 'filtered', 'faster'),
    [
        ({}, True, True),
        ({'stride': 2}, False, True),
        ({'stride': 2, 'in_channels': 64}, False, True),
        ({'stride': 2, 'in_channels': 32}, False, False),
        ({'stride': 3}, False, False),
        ({'padding': 0}, False, False),
        ({'padding': 'same'}, False, False),
        ({'dilation': 2, 'padding': 2}, False, False),
        ({'groups': 2}, False, False),
        ({'padding_mode': 'reflect'}, False, False),
        ({'kernel_size': 1, 'padding': 0}, False, False),
        ({'out_channels': 64}, True, True),
        ({'out_channels': 32}, False, False),
    ],
)
def test_which_convolutions(changes: dict, filtered: bool, faster: bool) -> None:
    conv = nn.Conv2d(**{**PLAIN, **changes})
    assert can_winograd(conv) is filtered
    assert winograd_conv.trains_faster(conv, torch.empty(2, 128, 40, 37)) is faster


@pytest.mark.parametrize(
    ('channels', 'shape', 'faster'),
    [
        (64, (2, 40, 40), True),
        (64, (8, 17, 20), True),
        (64, (2, 40, 36), False),
        (255, (2, 40, 36), False),
        (256, (2, 40, 36), True),
        (512, (2, 20, 20), True),
        (512, (8, 9, 10), True),
        (512, (2, 20, 18), False),
    ],
)
def test_enough_squares_to_transform_the_weights_for(channels: int, shape: tuple[int, int, int], faster: bool) -> None:
    """200 in a batch, begun ones too: of 4 x 4 pixels, or of 2 x 2 for many channels."""
    batch, *size = shape
    x = torch.empty(batch, channels, *size)
    assert winograd_conv.trains_faster(nn.Conv2d(channels, 600, 3, padding=1), x) is faster
    assert winograd_conv.trains_faster(nn.Conv2d(channels, 600, 3, 2, padding=1), x)  # which transforms nothing


def test_squares_of_2_for_many_channels_on_small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 numbers for each of a kernel instead of 36."""
    sizes = []

    def winograd_conv2d(x: Tensor, values: Tensor) -> Tensor:
        sizes.append(len(values))
        return core.winograd_conv2d(x, values)

    monkeypatch.setattr(winograd_conv, 'winograd_conv2d', winograd_conv2d)
    conv = WinogradConv2d(256, 256, 3, padding=1)
    for side in (57, 56, 28):
        conv(torch.randn(1, 256, side, side))
    assert sizes == [36, 16]  # torch's convolution for the last


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize('in_parts', [False, True])
@pytest.mark.parametrize(('stride', 'side'), [(1, 4), (1, 2), (2, 4)])
@pytest.mark.parametrize('bias', [True, False])
def test_output_and_gradients_are_torchs(
    stride: int, side: int, bias: bool, in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd_conv, '_NARROWEST', {side: 64})
    if in_parts:  # 50 channels at a time
        monkeypatch.setattr(winograd_conv, '_MOST', 36 * 128 * 50)
    ours = WinogradConv2d(128, 130, 3, stride=stride, padding=1, bias=bias).double()
    torchs = nn.Conv2d(128, 130, 3, stride=stride, padding=1, bias=bias).double()
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 128, 6, 9).double().requires_grad_()
    grad, found = None, []
    for conv in (ours, torchs):
        y = conv(x)
        grad = torch.randn_like(y) if grad is None else grad
        found.append((y, *torch.autograd.grad(y, (x, *conv.parameters()), grad)))
    assert 'Backward' in type(found[0][0].grad_fn).__name__ and found[0][0].grad_fn.name() != found[1][0].grad_fn.name()
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize('stride', [1, 2])
def test_only_the_gradients_asked_for(stride: int) -> None:
    """A frozen convolution between trained ones, and the first one of a network."""
    conv = WinogradConv2d(**PLAIN, stride=stride)
    x = torch.randn(1, 128, 5, 5)
    conv(x).sum().backward()
    assert conv.weight.grad is not None and x.grad is None
    conv = WinogradConv2d(**PLAIN, stride=stride).requires_grad_(False)
    x.requires_grad_()
    conv(x).sum().backward()
    assert conv.weight.grad is None and x.grad is not None


@pytest.mark.usefixtures('filtered_small_maps')
def test_elsewhere_it_is_torchs_own() -> None:
    """In prediction, in half precision, under autocast and in exported graphs: bit for bit."""
    ours, x = WinogradConv2d(**PLAIN), torch.randn(1, 128, 6, 6)
    torchs = nn.Conv2d(**PLAIN)
    torchs.load_state_dict(ours.state_dict())

    def same(one: nn.Module, other: nn.Module, x: Tensor) -> bool:
        return torch.equal(one(x), other(x))

    assert not same(ours, torchs, x)  # trained
    assert same(copy.deepcopy(ours).eval(), torchs, x)
    with torch.no_grad():
        assert same(ours, torchs, x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert same(ours, torchs, x) and ours(x).dtype == torch.bfloat16
    assert same(copy.deepcopy(ours).bfloat16(), copy.deepcopy(torchs).bfloat16(), x.bfloat16())


def test_mmcv_builds_it_by_name() -> None:
    conv = build_conv_layer({'type': 'WinogradConv2d'}, 128, 128, 3, padding=1)
    assert type(conv) is WinogradConv2d

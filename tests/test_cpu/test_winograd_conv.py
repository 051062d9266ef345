"""Convolutions trained with fewer multiplications are torch's convolutions."""

from __future__ import annotations

import copy

import pytest
import torch
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.cpu.convolution import WinogradConv2d, can_filter

PLAIN = {'in_channels': 128, 'out_channels': 128, 'kernel_size': 3, 'padding': 1}


@pytest.mark.parametrize(
    ('changes', 'filtered'),
    [
        ({}, True),
        ({'stride': 2}, False),
        ({'padding': 0}, False),
        ({'padding': 'same'}, False),
        ({'dilation': 2, 'padding': 2}, False),
        ({'groups': 2}, False),
        ({'padding_mode': 'reflect'}, False),
        ({'kernel_size': 1, 'padding': 0}, False),
        ({'out_channels': 64}, True),
        ({'out_channels': 63}, False),
        ({'in_channels': 63}, False),
    ],
)
def test_which_convolutions(changes: dict, filtered: bool) -> None:
    assert can_filter(nn.Conv2d(**{**PLAIN, **changes})) is filtered


@pytest.mark.parametrize(
    ('shape', 'filtered'), [((2, 40, 40), True), ((8, 17, 20), True), ((2, 40, 36), False), ((1, 57, 53), True)]
)
def test_enough_tiles_to_transform_the_weights_for(shape: tuple[int, int, int], filtered: bool) -> None:
    """200 tiles of 4 x 4 pixels in a batch, begun ones too."""
    batch, *size = shape
    assert WinogradConv2d(64, 64, 3, padding=1).is_filtered(torch.empty(batch, 64, *size)) is filtered


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize('bias', [True, False])
def test_output_and_gradients_are_torchs(bias: bool) -> None:
    ours = WinogradConv2d(128, 130, 3, padding=1, bias=bias).double()
    torchs = nn.Conv2d(128, 130, 3, padding=1, bias=bias).double()
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 128, 6, 9).double().requires_grad_()
    grad, runs = None, []
    for conv in (ours, torchs):
        y = conv(x)
        grad = torch.randn_like(y) if grad is None else grad
        runs.append((y, *torch.autograd.grad(y, (x, *conv.parameters()), grad)))
    assert 'Backward' in type(runs[0][0].grad_fn).__name__ and runs[0][0].grad_fn.name() != runs[1][0].grad_fn.name()
    for actual, expected in zip(*runs):
        torch.testing.assert_close(actual, expected, **within(torch.float64))


@pytest.mark.usefixtures('filtered_small_maps')
def test_only_the_gradients_asked_for() -> None:
    """A frozen convolution between trained ones, and the first one of a network."""
    conv = WinogradConv2d(**PLAIN)
    x = torch.randn(1, 128, 5, 5)
    conv(x).sum().backward()
    assert conv.weight.grad is not None and x.grad is None
    conv = WinogradConv2d(**PLAIN).requires_grad_(False)
    x.requires_grad_()
    conv(x).sum().backward()
    assert conv.weight.grad is None and x.grad is not None


@pytest.mark.usefixtures('filtered_small_maps')
def test_elsewhere_it_is_torchs_own() -> None:
    """In prediction, in half precision, under autocast and in exported graphs: bit for bit."""
    ours, x = WinogradConv2d(**PLAIN), torch.randn(1, 128, 6, 6)
    torchs = nn.Conv2d(**PLAIN)
    torchs.load_state_dict(ours.state_dict())

    def same(first: nn.Module, second: nn.Module, x: Tensor) -> bool:
        return torch.equal(first(x), second(x))

    assert not same(ours, torchs, x)  # trained
    assert same(copy.deepcopy(ours).eval(), torchs, x)
    with torch.no_grad():
        assert same(ours, torchs, x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert same(ours, torchs, x) and ours(x).dtype == torch.bfloat16
    assert same(copy.deepcopy(ours).bfloat16(), copy.deepcopy(torchs).bfloat16(), x.bfloat16())

"""Minimal filtering computes what convolutions and their gradients are."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from mmdet_iouquery.cpu import winograd
from mmdet_iouquery.cpu.winograd import transforms, winograd_conv2d, winograd_gradients, winograd_weight


def test_minimal_filtering_is_exact_in_rational_numbers() -> None:
    # each entry is the number in double precision that is nearest to a fraction of small numbers
    exact = [[[Fraction(x).limit_denominator(100) for x in row] for row in matrix.tolist()] for matrix in transforms()]
    assert [[[float(x) for x in row] for row in matrix] for matrix in exact] == [x.tolist() for x in transforms()]
    from_weight, from_input, from_output = exact
    draw = random.Random(0)
    for _ in range(20):
        weights, inputs = ([Fraction(draw.randint(-9, 9), draw.randint(1, 9)) for _ in range(n)] for n in (3, 6))
        of_weights, of_inputs = (
            [sum(a * b for a, b in zip(row, numbers)) for row in matrix]
            for matrix, numbers in ((from_weight, weights), (from_input, inputs))
        )
        products = [a * b for a, b in zip(of_weights, of_inputs)]
        actual = [sum(a * b for a, b in zip(row, products)) for row in from_output]
        assert actual == [sum(weights[k] * inputs[i + k] for k in range(3)) for i in range(4)]


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('size', [(8, 8), (5, 7), (1, 1), (2, 13)])
def test_equals_the_convolution_and_its_gradients(
    size: tuple[int, int], layout: torch.memory_format, dtype: torch.dtype, tolerance: float
) -> None:
    """In double precision to the last digits; in single, the transforms lose a digit at most."""
    x, weight, bias = torch.randn(2, 6, *size).double(), torch.randn(5, 6, 3, 3).double(), torch.randn(5).double()
    x.requires_grad_(), weight.requires_grad_()
    y = F.conv2d(x, weight, bias, padding=1)
    grad = torch.randn_like(y)
    grad_input, grad_weight = torch.autograd.grad(y, (x, weight), grad)

    x, grad = (tensor.detach().to(dtype).contiguous(memory_format=layout) for tensor in (x, grad))
    values, bias = winograd_weight(weight.detach().to(dtype)), bias.to(dtype)
    ours = winograd_conv2d(x, values, bias), *winograd_gradients(x, values, grad)
    for actual, expected in zip(ours, (y, grad_input, grad_weight)):
        assert actual.dtype == dtype
        assert (actual - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())


def test_of_no_images() -> None:
    x, weight = torch.empty(0, 4, 9, 6), torch.randn(5, 4, 3, 3)
    assert winograd_conv2d(x, winograd_weight(weight)).shape == (0, 5, 9, 6)
    grad_input, grad_weight = winograd_gradients(x, winograd_weight(weight), x.new_empty(0, 5, 9, 6))
    assert grad_input.shape == x.shape and grad_weight.shape == weight.shape and not grad_weight.any()


def test_only_the_gradients_asked_for() -> None:
    x, values, grad = torch.randn(1, 3, 9, 6), winograd_weight(torch.randn(5, 3, 3, 3)), torch.randn(1, 5, 9, 6)
    grad_input, grad_weight = winograd_gradients(x, values, grad)
    for asked in ((True, False), (False, True), (False, False)):
        for actual, expected, wanted in zip(
            winograd_gradients(x, values, grad, *asked), (grad_input, grad_weight), asked
        ):
            assert actual is None if not wanted else torch.equal(actual, expected)


@pytest.mark.parametrize('tiles', [1, 3 * 5, 21 * 5])
def test_in_strips_it_is_the_same(tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large map is transformed a few rows at a time, whose number does not divide the map's; small maps together."""
    x, values, grad = (
        torch.randn(3, 4, 37, 18),
        winograd_weight(torch.randn(5, 4, 3, 3)),
        torch.randn(3, 5, 37, 18),
    )
    whole = winograd_conv2d(x, values), *winograd_gradients(x, values, grad)
    monkeypatch.setattr(winograd, '_STRIP', tiles)
    in_strips = winograd_conv2d(x, values), *winograd_gradients(x, values, grad)
    for actual, expected in zip(in_strips, whole):
        # of the largest number, as that of a tile mixes all of its pixels
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())

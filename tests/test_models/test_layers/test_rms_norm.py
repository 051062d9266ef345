"""RMSNorm and SwiGLU, by hand, in half precision and at the start."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import about
from torch import nn

from mmdet_iouquery.models.layers import RMSNorm, SwiGLU


def test_norm_by_hand() -> None:
    """The mean square of 3, 4, 0, 0 is 6.25."""
    norm = RMSNorm(4, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    expected = torch.tensor([[1.2, 3.2, 0.0, 0.0]])
    torch.testing.assert_close(norm(torch.tensor([[3.0, 4.0, 0.0, 0.0]])), expected)
    torch.testing.assert_close(norm(torch.tensor([[-300.0, 400.0, 0.0, 0.0]])), expected * torch.tensor([-1, 1, 1, 1]))
    assert torch.equal(RMSNorm(4)(torch.zeros(2, 4)), torch.zeros(2, 4))


def test_norm_is_torchs() -> None:
    ours, theirs, x = RMSNorm(8).double(), nn.RMSNorm(8, eps=1e-6).double(), torch.randn(3, 5, 8).double()
    nn.init.normal_(theirs.weight)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_norm_computes_in_single_precision(dtype: torch.dtype) -> None:
    """Features of 60,000, whose squares are far beyond float16's range, and of 1e-6, whose squares are below it."""
    norm = RMSNorm(8)
    x = (torch.tensor([[60000.0], [1.0], [1e-3]]) * torch.linspace(-1, 1, 8)).to(dtype)
    expected = norm(x.float())
    assert expected.isfinite().all() and expected[0].abs().max() > 1
    assert norm(x).dtype == torch.float32, 'weights that stay in single precision, as under autocast'
    assert torch.equal(norm(x), expected)
    torch.testing.assert_close(norm.to(dtype)(x), expected.to(dtype))


def test_swiglu_by_hand_and_its_first_values() -> None:
    layer = SwiGLU(64, 128)
    for linear, shape in ((layer.w12, (256, 64)), (layer.w3, (64, 128))):
        assert linear.weight.shape == shape and not linear.bias.any()
        bound = math.sqrt(6 / sum(shape))
        assert 0.99 * bound < linear.weight.abs().max() <= bound
    small = SwiGLU(1, 2)
    with torch.no_grad():
        small.w12.weight.copy_(torch.tensor([[1.0], [-1.0], [3.0], [5.0]]))  # a = x, -x; b = 3 x, 5 x
        small.w3.weight.copy_(torch.tensor([[1.0, 10.0]]))
        small.w3.bias.fill_(0.25)
    x = torch.tensor([[2.0]])
    sigmoid = 1 / (1 + math.exp(-2))
    expected = 2 * sigmoid * 6 + 10 * (-2 * (1 - sigmoid)) * 10 + 0.25
    assert small(x).item() == about(expected)

"""Attention in bfloat16 on CPUs, which is computed without torch's fused form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmdet_iouquery.cpu.attention import ProductAttention


@pytest.mark.parametrize('mask', ['none', 'between queries', 'padding'])
def test_it_is_the_attention_of_single_precision(mask: str) -> None:
    """Values and gradients, to bfloat16's rounding; what may not be read gets no gradient."""
    queries, keys = 12, 12 if mask == 'between queries' else 9
    inputs = [torch.randn(2, 4, n, 8).bfloat16() for n in (queries, keys, keys)]
    grad = torch.randn(2, 4, queries, 8).bfloat16()
    allowed = None
    if mask == 'between queries':
        allowed = torch.ones(queries, queries, dtype=torch.bool)
        allowed[5:, :5] = False
    elif mask == 'padding':
        allowed = torch.ones(2, 1, 1, keys, dtype=torch.bool)
        allowed[1, ..., 6:] = False

    found = [x.clone().requires_grad_() for x in inputs]
    y = ProductAttention()(*found, allowed)
    expected = [x.double().requires_grad_() for x in inputs]
    z = F.scaled_dot_product_attention(*expected, attn_mask=allowed)
    assert y.dtype == torch.bfloat16
    for one, other in zip(
        (y, *torch.autograd.grad(y, found, grad)), (z, *torch.autograd.grad(z, expected, grad.double()))
    ):
        # numbers of about 1, their sums rounded to 8 binary digits a few times
        assert (one.double() - other).abs().max() < 0.05
    if mask == 'padding':
        of_value = torch.autograd.grad(ProductAttention()(*found, allowed), found, grad)[2]
        assert (of_value[1, :, 6:] == 0).all() and (of_value[0] != 0).all()


def test_dropout_leaves_the_mean_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 2, 3, 8).bfloat16(), torch.randn(1, 2, 50, 8).bfloat16()
    value = torch.ones(1, 2, 50, 8).bfloat16()
    drawn = torch.stack([ProductAttention(0.5)(query, key, value).float() for _ in range(200)])
    assert drawn.std() > 0.1
    assert abs(drawn.mean() - 1) < 0.03

"""mmcv's operator as a back end: what it is handed, and when it is not asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mmcv.ops.multi_scale_deform_attn as op
import pytest
import torch
from torch import Tensor

from mmdet_iouquery.core import multi_scale_deformable_attention
from mmdet_iouquery.models.layers import mmcv_attention


def test_it_is_handed_what_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmcv's own PyTorch version, which has the operator's arguments, gives the same from them."""
    shapes, handed = ((5, 3), (2, 4)), []

    def apply(value: Tensor, level_shapes: Tensor, starts: Tensor, *rest: Any) -> Tensor:
        handed.append((starts.tolist(), rest[2]))
        assert all(x.is_contiguous() and x.dtype == torch.float32 for x in (value, *rest[:2]))
        return op.multi_scale_deformable_attn_pytorch(value, level_shapes, *rest[:2])

    monkeypatch.setattr(op, 'MultiScaleDeformableAttnFunction', SimpleNamespace(apply=apply))
    monkeypatch.setattr(mmcv_attention, 'ops_state', lambda: 'compiled')
    value = torch.randn(2, 2, 23, 3).transpose(1, 2)
    locations, weights = torch.rand(2, 4, 2, 6, 2), torch.rand(2, 4, 2, 6)
    for dtype in (torch.float32, torch.bfloat16):
        ours = mmcv_attention.attend(value.to(dtype), shapes, (3, 3), locations, weights, 'bilinear')
        expected = multi_scale_deformable_attention(
            value.to(dtype), shapes, locations, weights, num_points=(3, 3), backend='grid_sample'
        )
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)  # the same sums, in bfloat16 too
    assert handed == [([0, 15], 2)] * 2  # all images of the batch in one go


def test_it_is_asked_for_what_it_can_only(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device('cpu'), torch.device('cuda')
    monkeypatch.setattr(mmcv_attention, 'ops_state', lambda: 'stand-in')
    assert mmcv_attention.missing(cuda) == 'mmcv has no compiled operators'
    monkeypatch.setattr(mmcv_attention, 'ops_state', lambda: 'compiled')
    assert mmcv_attention.missing(cuda) is None and mmcv_attention.missing(cpu) == 'it runs on CUDA devices only'
    assert mmcv_attention.can((4, 4), 'bilinear')
    assert not mmcv_attention.can((4, 3), 'bilinear') and not mmcv_attention.can((4, 4), 'discrete')

"""Varifocal loss: values by hand, and what gets a gradient."""

from __future__ import annotations

import math

import pytest
import torch

from mmdet_iouquery.core import varifocal_loss


def test_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    loss = varifocal_loss(logits, torch.tensor([1, 2]), torch.tensor([0.6, 0.9], dtype=torch.float64))

    def negative(x: float) -> float:
        p = 1 / (1 + math.exp(-x))
        return 0.75 * p**2 * -math.log(1 - p)

    p = 1 / (1 + math.exp(-1))
    positive = 0.6 * -(0.6 * math.log(p) + 0.4 * math.log(1 - p))
    assert loss[0].tolist() == pytest.approx([negative(0.0), positive])
    # label 2 of 2 classes is background; its quality is not read
    assert loss[1].tolist() == pytest.approx([negative(2.0), negative(-1.0)])


def test_weight_is_detached() -> None:
    logits = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    varifocal_loss(logits, torch.tensor([1]), torch.zeros(1, dtype=torch.float64)).sum().backward()
    p = torch.sigmoid(torch.tensor(0.7, dtype=torch.float64)).item()
    # d(w * bce)/dx with w constant: w * p
    assert logits.grad.item() == pytest.approx(0.75 * p**2 * p)


def test_matched_box_without_overlap_gets_no_gradient() -> None:
    logits = torch.tensor([[1.3, -0.2]], requires_grad=True)
    varifocal_loss(logits, torch.tensor([0]), torch.zeros(1)).sum().backward()
    assert logits.grad[0, 0] == 0 and logits.grad[0, 1] > 0


def test_minimum_lies_at_the_iou() -> None:
    for iou in (0.2, 0.5, 0.9):
        x = torch.linspace(-6, 6, 2401, dtype=torch.float64)
        loss = varifocal_loss(x[:, None], torch.zeros(2401, dtype=torch.long), torch.full((2401,), iou).double())
        assert x[loss.argmin()].sigmoid().item() == pytest.approx(iou, abs=2e-3)

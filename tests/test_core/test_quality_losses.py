"""Varifocal and matchability-aware loss: values by hand and by the authors' code, and what gets a gradient."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import golden_formula
import numpy as np
import pytest
import torch
from tolerances import about
from torch import Tensor

from mmdet_iouquery.core import (
    box_cxcywh_to_xyxy,
    box_iou_elementwise,
    matchability_aware_loss,
    varifocal_loss,
)

GOLDEN = Path(__file__).parents[1] / 'data' / 'next_units.npz'


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
        assert x[loss.argmin()].sigmoid().item() == pytest.approx(iou, abs=2e-3)  # steps of 0.005 in logits


def test_matchability_by_hand() -> None:
    """Weight 1 and target q ** 1.5 for the labelled class; p ** 1.5 for all else, a row of background among it."""
    logits = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    labels, quality = torch.tensor([1, 2]), torch.tensor([0.36, 0.9], dtype=torch.float64)
    loss = matchability_aware_loss(logits, labels, quality)

    def negative(x: float) -> float:
        p = 1 / (1 + math.exp(-x))
        return p**1.5 * -math.log(1 - p)

    p = 1 / (1 + math.exp(-1))
    positive = -(0.216 * math.log(p) + 0.784 * math.log(1 - p))
    assert loss[0].tolist() == pytest.approx([negative(0.0), positive])
    assert loss[1].tolist() == pytest.approx([negative(2.0), negative(-1.0)])
    with_alpha = matchability_aware_loss(logits, labels, quality, alpha=0.3)
    torch.testing.assert_close(with_alpha / loss, torch.tensor([[0.3, 1.0], [0.3, 0.3]], dtype=torch.float64))


def test_a_matched_box_without_overlap_is_pushed_down_whole() -> None:
    """Where the varifocal loss gives no gradient; the other entry's weight is no path for one."""
    logits = torch.tensor([[1.3, -0.2]], dtype=torch.float64, requires_grad=True)
    matchability_aware_loss(logits, torch.tensor([0]), torch.zeros(1)).sum().backward()
    p = logits.detach().sigmoid()[0]
    assert logits.grad.tolist()[0] == pytest.approx([p[0].item(), p[1].item() ** 2.5])


@pytest.mark.parametrize(
    ('name', 'loss', 'settings'),
    [
        ('mal', matchability_aware_loss, {}),
        ('mal_alpha', matchability_aware_loss, {'alpha': 0.75}),
        ('mal_gamma2', matchability_aware_loss, {'gamma': 2.0}),
        ('vfl', varifocal_loss, {}),
    ],
)
def test_the_authors_values_and_gradients(name: str, loss: Any, settings: dict[str, float]) -> None:
    golden = np.load(GOLDEN)
    logits = torch.tensor(golden['logits'], requires_grad=True)
    labels, quality = torch.full(logits.shape[:2], 6), torch.zeros(logits.shape[:2])
    for image, (classes, boxes) in enumerate(golden_formula.targets('units', 2, [4, 2], 6)):
        query, truth = torch.tensor(golden[f'assigned_{image}'])
        labels[image, query] = torch.from_numpy(classes)[truth]
        quality[image, query] = _iou(golden['predicted_boxes'][image][query], boxes[truth])
    total = loss(logits.flatten(0, 1), labels.flatten(), quality.flatten(), **settings).sum() / 6
    total.backward()
    assert total.item() == about(float(golden[f'loss/{name}']), 'sum')
    # gradients are below 0.2
    torch.testing.assert_close(logits.grad, torch.tensor(golden[f'grad/{name}']), rtol=1e-5, atol=1e-7)


def _iou(boxes: np.ndarray, others: np.ndarray) -> Tensor:
    return box_iou_elementwise(*(box_cxcywh_to_xyxy(torch.from_numpy(x)) for x in (boxes, others)))

"""The registered loss and the criterion."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS

from mmdet_iouquery.core import varifocal_loss
from mmdet_iouquery.models.dense_heads.rtdetr_head import CRITERION
from mmdet_iouquery.structures import Predictions, Targets


def test_varifocal_as_mmdets_heads_call_it() -> None:
    loss = MODELS.build({'type': 'IoUVarifocalLoss', 'alpha': 0.6, 'gamma': 1.5, 'loss_weight': 3.0})
    logits, labels, quality = torch.randn(6, 4), torch.tensor([0, 4, 4, 2, 4, 3]), torch.rand(6)
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0, 0.5])
    rows = varifocal_loss(logits, labels, quality, alpha=0.6, gamma=1.5).sum(-1)
    assert isinstance(loss, QualityFocalLoss)
    expected = 3 * (rows * weight).sum() / 5
    torch.testing.assert_close(loss(logits, (labels, quality), weight, avg_factor=5), expected)
    torch.testing.assert_close(loss(logits, (labels, quality), reduction_override='sum'), 3 * rows.sum())
    torch.testing.assert_close(loss(logits, (labels, quality), reduction_override='none'), 3 * rows)


def perfect(scale: float = 12.0) -> tuple[Predictions, Targets]:
    """Two images, 2 and 1 boxes; queries 3, 1 and 2 predict them exactly and surely, in both layers."""
    targets = Targets(torch.tensor([1, 0, 2]), torch.rand(3, 4) * 0.4 + 0.2, (2, 1))
    logits, boxes = torch.full((2, 2, 5, 3), -scale), torch.rand(2, 2, 5, 4) * 0.2 + 0.6
    for image, query, truth in ((0, 3, 0), (0, 1, 1), (1, 2, 2)):
        logits[:, image, query, targets.labels[truth]] = scale
        boxes[:, image, query] = targets.boxes[truth]
    return Predictions(logits, boxes), targets


def test_perfect_predictions_cost_nothing_and_find_their_boxes() -> None:
    criterion = MODELS.build(CRITERION)
    predictions, targets = perfect()
    pairs = criterion.assigner(predictions, targets)
    assert pairs.query.tolist() == [3, 1, 2] * 2 and pairs.image.tolist() == [0, 0, 1] * 2
    losses = criterion(predictions, None, targets, None)
    assert set(losses) == {f'{p}{t}' for p in ('', 'd0.') for t in ('loss_cls', 'loss_bbox', 'loss_iou')}
    for name, value in losses.items():
        assert value.item() == pytest.approx(0, abs=1e-4), name


def test_losses_by_hand() -> None:
    """One box off by 0.1 in cx: L1 5 * 0.1; GIoU of unit squares shifted by half a width; over three boxes."""
    criterion = MODELS.build(CRITERION)
    predictions, targets = perfect()
    targets.boxes[0] = torch.tensor([0.4, 0.5, 0.2, 0.2])
    predictions.boxes[:, 0, 3] = torch.tensor([0.5, 0.5, 0.2, 0.2])
    losses = criterion(predictions, None, targets, None)
    assert losses['loss_bbox'].item() == pytest.approx(5 * 0.1 / 3, rel=1e-4)
    # intersection 1/2, union 3/2, hull 3/2
    assert losses['loss_iou'].item() == pytest.approx(2 * (1 - 1 / 3) / 3, rel=1e-4)


def test_order_of_images_and_queries_does_not_matter() -> None:
    criterion = MODELS.build(CRITERION)
    predictions = Predictions(torch.randn(2, 2, 6, 3), torch.rand(2, 2, 6, 4) * 0.4 + 0.2)
    targets = Targets(torch.tensor([1, 0, 2]), torch.rand(3, 4) * 0.4 + 0.2, (2, 1))
    swapped = Targets(targets.labels[[2, 1, 0]], targets.boxes[[2, 1, 0]], (1, 2))
    other = Predictions(*(x.flip(1).flip(2) for x in predictions))
    ours, theirs = criterion(predictions, None, targets, None), criterion(other, None, swapped, None)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])


def test_mmdets_focal_loss_gets_labels_alone() -> None:
    cfg = {**CRITERION, 'loss_cls': {'type': 'FocalLoss', 'use_sigmoid': True, 'loss_weight': 2.0}}
    criterion = MODELS.build(cfg)
    predictions, targets = perfect(scale=2.0)
    losses = criterion(predictions, None, targets, None)
    p, entries = torch.tensor(2.0).sigmoid(), 2 * 5 * 3
    each = (1 - p) ** 2 * -torch.log(p)
    expected = 2 * (3 * 0.25 + (entries - 3) * 0.75) * each / 3
    torch.testing.assert_close(losses['loss_cls'], expected)


def test_half_precision_predictions_give_single_precision_losses() -> None:
    criterion = MODELS.build(CRITERION)
    predictions, targets = perfect()
    losses = criterion(Predictions(*(x.bfloat16() for x in predictions)), None, targets, None)
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in losses.values())

"""The registered loss and the criterion."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import decoded
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS, TASK_UTILS
from tolerances import about, within

from mmdet_iouquery.core import (
    box_cxcywh_to_xyxy,
    complete_box_iou_elementwise,
    distance_box_iou_elementwise,
    generalized_box_iou_elementwise,
    matchability_aware_loss,
    varifocal_loss,
)
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.dense_heads.rtdetr_head import CRITERION
from mmdet_iouquery.models.losses import PerImageAssigner
from mmdet_iouquery.structures import EncoderTarget, Predictions, Queries, Selection, Targets

QUALITY_LOSSES = {
    'IoUVarifocalLoss': (varifocal_loss, {'alpha': 0.6, 'gamma': 1.5}),
    'MatchabilityAwareLoss': (matchability_aware_loss, {'alpha': 0.6, 'gamma': 2.5}),
}


@pytest.mark.parametrize('name', QUALITY_LOSSES)
def test_quality_losses_as_mmdets_heads_call_them(name: str) -> None:
    terms, settings = QUALITY_LOSSES[name]
    loss = MODELS.build({'type': name, **settings, 'loss_weight': 3.0})
    logits, labels, quality = torch.randn(6, 4), torch.tensor([0, 4, 4, 2, 4, 3]), torch.rand(6)
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0, 0.5])
    rows = terms(logits, labels, quality, **settings).sum(-1)
    assert isinstance(loss, QualityFocalLoss)
    expected = 3 * (rows * weight).sum() / 5
    torch.testing.assert_close(loss(logits, (labels, quality), weight, avg_factor=5), expected)
    torch.testing.assert_close(loss(logits, (labels, quality), reduction_override='sum'), 3 * rows.sum())
    torch.testing.assert_close(loss(logits, (labels, quality), reduction_override='none'), 3 * rows)


@pytest.mark.parametrize('name', QUALITY_LOSSES)
def test_class_weights(name: str) -> None:
    """A weight scales the terms of its class, of positives and negatives, and no other; ones change no bit."""
    logits, labels, quality = torch.randn(6, 4), torch.tensor([0, 4, 4, 2, 4, 3]), torch.rand(6)

    def rows(class_weight: list[float] | None) -> torch.Tensor:
        loss = MODELS.build({'type': name, 'class_weight': class_weight})
        assert not loss.state_dict(), 'a checkpoint has the same keys with weights and without'
        return loss(logits, (labels, quality), reduction_override='none')

    assert torch.equal(rows([1.0] * 4), rows(None))
    terms = QUALITY_LOSSES[name][0](logits, labels, quality)
    torch.testing.assert_close(rows([1.0, 1.0, 5.0, 1.0]) - rows(None), 4 * terms[:, 2])
    with pytest.raises(ValueError, match='class_weight has 3 numbers for 4 classes'):
        rows([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match='class_weight must be finite numbers of at least 0'):
        rows([1.0, -2.0, 3.0, 1.0])


@pytest.mark.parametrize('name', QUALITY_LOSSES)
def test_quality_losses_refuse_a_softmax(name: str) -> None:
    with pytest.raises(InputError, match=f'{name} scores each class by a sigmoid .* leave use_sigmoid out .* own loss'):
        MODELS.build({'type': name, 'use_sigmoid': False})


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
    losses = criterion(decoded(predictions), targets)
    assert set(losses) == {f'{p}{t}' for p in ('', 'd0.') for t in ('loss_cls', 'loss_bbox', 'loss_iou')}
    for name, value in losses.items():
        assert value.item() == pytest.approx(0, abs=1e-4), name  # a logit of 12 leaves a probability of 6e-6


def test_losses_by_hand() -> None:
    """One box off by 0.1 in cx: L1 5 * 0.1; GIoU of unit squares shifted by half a width; over three boxes."""
    criterion = MODELS.build(CRITERION)
    predictions, targets = perfect()
    targets.boxes[0] = torch.tensor([0.4, 0.5, 0.2, 0.2])
    predictions.boxes[:, 0, 3] = torch.tensor([0.5, 0.5, 0.2, 0.2])
    losses = criterion(decoded(predictions), targets)
    assert losses['loss_bbox'].item() == about(5 * 0.1 / 3, 'sum')
    # intersection 1/2, union 3/2, hull 3/2
    assert losses['loss_iou'].item() == about(2 * (1 - 1 / 3) / 3, 'sum')


def test_order_of_images_and_queries_does_not_matter() -> None:
    criterion = MODELS.build(CRITERION)
    predictions = Predictions(torch.randn(2, 2, 6, 3), torch.rand(2, 2, 6, 4) * 0.4 + 0.2)
    targets = Targets(torch.tensor([1, 0, 2]), torch.rand(3, 4) * 0.4 + 0.2, (2, 1))
    swapped = Targets(targets.labels[[2, 1, 0]], targets.boxes[[2, 1, 0]], (1, 2))
    other = predictions.apply(lambda x: x.flip(1).flip(2))
    ours, theirs = criterion(decoded(predictions), targets), criterion(decoded(other), swapped)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])


def test_mmdets_focal_loss_gets_labels_alone() -> None:
    cfg = {**CRITERION, 'loss_cls': {'type': 'FocalLoss', 'use_sigmoid': True, 'loss_weight': 2.0}}
    criterion = MODELS.build(cfg)
    predictions, targets = perfect(scale=2.0)
    losses = criterion(decoded(predictions), targets)
    p, entries = torch.tensor(2.0).sigmoid(), 2 * 5 * 3
    each = (1 - p) ** 2 * -torch.log(p)
    expected = 2 * (3 * 0.25 + (entries - 3) * 0.75) * each / 3
    torch.testing.assert_close(losses['loss_cls'], expected)


def test_half_precision_predictions_give_single_precision_losses() -> None:
    criterion = MODELS.build(CRITERION)
    predictions, targets = perfect()
    decoder = predictions.apply(lambda x: x.bfloat16())
    encoder = decoder.apply(lambda x: x[:1])
    chosen = selection(encoder, iou_logits=torch.randn(1, 2, 5, dtype=torch.bfloat16))
    losses = criterion(decoded(decoder, chosen), targets)
    assert 'enc_loss_quality' in losses
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in losses.values())


def one_pair(logit: float = 0.0) -> tuple[Predictions, Targets]:
    """One image, one box of class 1, two queries: the first shifted by a quarter of the box's width, the other far."""
    targets = Targets(torch.tensor([1]), torch.tensor([[0.4, 0.5, 0.2, 0.2]]), (1,))
    boxes = torch.tensor([[[[0.45, 0.5, 0.2, 0.2], [0.9, 0.9, 0.05, 0.05]]]])
    return Predictions(torch.full((1, 1, 2, 3), logit), boxes), targets


def selection(encoder: Predictions, **more: object) -> Selection:
    queries = Queries(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    return Selection(queries, encoder, encoder_target=EncoderTarget(**more))


@pytest.mark.parametrize(('score', 'target'), [('iou', 0.6), (None, 0.6), ('label', 1.0)])
def test_encoder_scores_learn_what_the_selector_says(score: str | None, target: float) -> None:
    """IoU of the pair: 0.15 / 0.25. The decoder's own loss does not change with it."""
    criterion = MODELS.build(CRITERION)
    predictions, targets = one_pair()
    losses = criterion(decoded(predictions, selection(predictions, score=score)), targets)
    quality = torch.tensor([target, 0.0])
    expected = varifocal_loss(predictions.logits[0, 0], torch.tensor([1, 3]), quality).sum()
    torch.testing.assert_close(losses['enc_loss_cls'], expected, **within('sum'))
    decoder = varifocal_loss(predictions.logits[0, 0], torch.tensor([1, 3]), torch.tensor([0.6, 0.0])).sum()
    torch.testing.assert_close(losses['loss_cls'], decoder, **within('sum'))


def test_an_iou_aware_encoder_beside_a_focal_decoder_has_a_varifocal_loss() -> None:
    criterion = MODELS.build({**CRITERION, 'loss_cls': {'type': 'FocalLoss', 'use_sigmoid': True, 'loss_weight': 2.0}})
    predictions, targets = one_pair()
    aware = criterion(decoded(predictions, selection(predictions, score='iou')), targets)
    plain = criterion(decoded(predictions, selection(predictions, score='label')), targets)
    varifocal = varifocal_loss(predictions.logits[0, 0], torch.tensor([1, 3]), torch.tensor([0.6, 0.0])).sum()
    torch.testing.assert_close(aware['enc_loss_cls'], 2 * varifocal, **within('sum'))
    torch.testing.assert_close(plain['enc_loss_cls'], plain['loss_cls'])
    assert torch.equal(aware['loss_cls'], plain['loss_cls'])


def test_a_class_agnostic_encoder_learns_objects() -> None:
    """Class 1 counts as class 0 for it, and it is matched for itself, whatever the number of its predictions."""
    criterion = MODELS.build(CRITERION)
    predictions, targets = one_pair()
    logits = torch.tensor([[[[-9.0, 9, 9], [-9, 9, 9], [0, 0, 0]]]])
    encoder = Predictions(logits, torch.cat([predictions.boxes[:, :, [1]], predictions.boxes], dim=2))
    losses = criterion(decoded(predictions, selection(encoder, class_agnostic=True)), targets)
    labels, quality = torch.tensor([3, 0, 3]), torch.tensor([0, 0.6, 0])
    torch.testing.assert_close(losses['enc_loss_cls'], varifocal_loss(logits[0, 0], labels, quality).sum())
    assert losses['enc_loss_bbox'].item() == about(5 * 0.05, 'sum')


def test_predicted_iou_learns_the_iou_of_its_own_box() -> None:
    criterion = MODELS.build(CRITERION)
    predictions, targets = one_pair()
    iou_logits = torch.tensor([[[0.3, -2.0]]], requires_grad=True)
    losses = criterion(decoded(predictions, selection(predictions, score='label', iou_logits=iou_logits)), targets)
    expected = F.binary_cross_entropy_with_logits(torch.tensor(0.3), torch.tensor(0.6))
    torch.testing.assert_close(losses['enc_loss_quality'], expected, **within('sum'))
    (gradient,) = torch.autograd.grad(losses['enc_loss_quality'], iou_logits)
    assert gradient.flatten().tolist() == about([torch.tensor(0.3).sigmoid().item() - 0.6, 0.0], 'unit')


@pytest.mark.parametrize(
    ('kind', 'overlap'),
    [
        ('giou', generalized_box_iou_elementwise),
        ('diou', distance_box_iou_elementwise),
        ('ciou', complete_box_iou_elementwise),
    ],
)
def test_soft_targets_of_other_overlaps(kind: str, overlap: object) -> None:
    criterion = MODELS.build({**CRITERION, 'quality': kind})
    predictions, targets = one_pair()
    predictions.boxes[..., 0, :] = torch.tensor([0.45, 0.52, 0.3, 0.1])
    soft = overlap(box_cxcywh_to_xyxy(predictions.boxes[0, 0, 0]), box_cxcywh_to_xyxy(targets.boxes[0]))
    iou = MODELS.build(CRITERION)(decoded(predictions), targets)
    assert 0 < soft < 1
    losses = criterion(decoded(predictions), targets)
    expected = varifocal_loss(predictions.logits[0, 0], torch.tensor([1, 3]), torch.stack([soft, torch.tensor(0.0)]))
    torch.testing.assert_close(losses['loss_cls'], expected.sum())
    assert losses['loss_cls'] != iou['loss_cls'] and torch.equal(losses['loss_iou'], iou['loss_iou'])


def test_negative_overlaps_count_as_none() -> None:
    criterion = MODELS.build({**CRITERION, 'quality': 'giou'})
    predictions, targets = one_pair()
    targets.boxes[0] = torch.tensor([0.1, 0.1, 0.05, 0.05])
    losses = criterion(decoded(predictions), targets)
    expected = varifocal_loss(predictions.logits[0, 0], torch.tensor([1, 3]), torch.zeros(2)).sum()
    torch.testing.assert_close(losses['loss_cls'], expected)


def test_an_unknown_overlap_is_named() -> None:
    with pytest.raises(ValueError, match=r"quality must be one of .* got 'siou'"):
        MODELS.build({**CRITERION, 'quality': 'siou'})


def test_the_assigners_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r'alpha must .*1.*, got 1\.5'):
        TASK_UTILS.build({'type': 'BatchedHungarianAssigner', 'alpha': 1.5})


MMDETS_COSTS = [
    {'type': 'FocalLossCost', 'weight': 2.0},
    {'type': 'BBoxL1Cost', 'weight': 5.0, 'box_format': 'xywh'},
    {'type': 'IoUCost', 'iou_mode': 'giou', 'weight': 2.0},
]


@pytest.mark.parametrize('counts', [(2, 3), (0, 4), (0, 0), (7, 1), (2, 1, 3)], ids=str)
def test_mmdets_assigner_and_the_batched_one_agree(counts: tuple[int, ...]) -> None:
    """Seven boxes for six queries among them."""
    total, images = sum(counts), len(counts)
    predictions = Predictions(torch.randn(3, images, 6, 4), torch.rand(3, images, 6, 4) * 0.4 + 0.2)
    targets = Targets(torch.randint(4, (total,)), torch.rand(total, 4) * 0.4 + 0.2, counts)
    theirs = PerImageAssigner(TASK_UTILS.build({'type': 'HungarianAssigner', 'match_costs': MMDETS_COSTS}))
    ours = TASK_UTILS.build({'type': 'BatchedHungarianAssigner'})
    rows = [sorted(zip(*(index.tolist() for index in assigner(predictions, targets)))) for assigner in (ours, theirs)]
    assert rows[0] == rows[1] and len(rows[0]) == 3 * sum(min(count, 6) for count in counts)

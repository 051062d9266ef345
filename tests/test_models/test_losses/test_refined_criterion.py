"""The criterion of a decoder that refines distributions, and union matching."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import decoded, transfers
from mmdet.registry import MODELS
from test_set_criterion import CLASSES, LAYERS, truth
from torch import Tensor

from mmdet_iouquery.core import (
    balance,
    balanced_mean,
    bin_values,
    box_cxcywh_to_xyxy,
    box_iou_elementwise,
    edge_targets,
)
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.decoders import DeformableDecoder
from mmdet_iouquery.models.dense_heads.rtdetr_head import CRITERION
from mmdet_iouquery.models.losses import SetCriterion, set_criterion
from mmdet_iouquery.structures import DenoisingQueries, Pairs, Predictions, Queries, Refinement, Selection, Targets

MATCHING, NOISY, IMAGES, BINS = 6, 4, 2, 9
EDGES = {
    'loss_fgl': {'type': 'FineGrainedLocalizationLoss', 'loss_weight': 0.15},
    'loss_ddf': {'type': 'DistributionDistillationLoss', 'loss_weight': 1.5},
}
THREE = ('loss_cls', 'loss_bbox', 'loss_iou')
Row = tuple[int, int, int]


def build(**settings: Any) -> SetCriterion:
    return MODELS.build({**CRITERION, 'union_matching': True, **EDGES, **settings})


def boxes_of(*shape: int) -> Tensor:
    return torch.rand(*shape, 4, dtype=torch.float64) * 0.4 + 0.2


def refined(queries: int, layers: int = LAYERS) -> Predictions:
    logits = torch.randn(layers, IMAGES, queries, CLASSES, dtype=torch.float64)
    corners = torch.randn(layers, IMAGES, queries, 4, BINS, dtype=torch.float64)
    initial = torch.randn(1, IMAGES, queries, CLASSES, dtype=torch.float64), boxes_of(1, IMAGES, queries)
    refinement = Refinement(corners, *initial, bin_values(BINS - 1, 4.0).double(), 4.0)
    return Predictions(logits, boxes_of(layers, IMAGES, queries), refinement)


def selection() -> Selection:
    logits = torch.randn(1, IMAGES, MATCHING, CLASSES, dtype=torch.float64)
    queries = Queries(torch.zeros(IMAGES, MATCHING, 8), torch.zeros(IMAGES, MATCHING, 4))
    return Selection(queries, Predictions(logits, boxes_of(1, IMAGES, MATCHING)))


def denoising(rows: list[Row]) -> DenoisingQueries:
    """Of image, query and ground truth; two groups."""
    noisy = Queries(torch.zeros(IMAGES, NOISY, 8), torch.zeros(IMAGES, NOISY, 4))
    index = torch.tensor(rows, dtype=torch.long).reshape(-1, 3).unbind(1)
    return DenoisingQueries(noisy, torch.zeros(NOISY + MATCHING, NOISY + MATCHING).bool(), index, 2)


class Told:
    """An assigner that answers what it was told: rows of each layer."""

    def __init__(self, *layers: list[Row]) -> None:
        self.layers = layers

    def __call__(self, predictions: Predictions, targets: Targets) -> Pairs:
        assert predictions.logits.shape[0] == len(self.layers)
        rows = [(layer, *row) for layer, some in enumerate(self.layers) for row in some]
        return Pairs(*torch.tensor(rows).unbind(1))


LAST = [(0, 0, 0), (0, 1, 1), (1, 3, 2)]
OTHERS = [(0, 0, 0), (0, 2, 1), (1, 3, 2)]
ENCODER = [(0, 0, 1), (0, 2, 0), (1, 5, 2)]
# layers 0 to 2, the initial prediction, the encoder
ROWS = (OTHERS, OTHERS, LAST, OTHERS, ENCODER)
UNION = [(0, 0, 0), (0, 1, 1), (0, 2, 1), (1, 3, 2), (1, 5, 2)]


def losses_of(criterion: SetCriterion, noise: bool = True) -> tuple[dict[str, Tensor], Predictions, Selection, Targets]:
    torch.manual_seed(3)
    targets, chosen = truth(2, 1), selection()
    predictions = refined(MATCHING + (NOISY if noise else 0))
    noisy = denoising([(0, 0, 0), (0, 1, 1), (0, 2, 0), (0, 3, 1), (1, 0, 2), (1, 2, 2)]) if noise else None
    return criterion(decoded(predictions, chosen, noisy), targets), predictions, chosen, targets


def test_names() -> None:
    losses, *_ = losses_of(build())
    matching = [f'd{i}.{term}' for i in range(2) for term in (*THREE, 'loss_fgl', 'loss_ddf')]
    matching += [*THREE, 'loss_fgl', *(f'pre.{term}' for term in THREE)]
    noisy = [name.replace('loss', 'dn_loss') for name in matching]
    assert set(losses) == {*matching, *noisy, *(f'enc_{term}' for term in THREE)}
    empty = build()(decoded(refined(NOISY + MATCHING), selection(), denoising([])), truth(0, 0))
    assert list(empty) == list(losses), 'whatever the batch holds'
    assert all(loss.isfinite() for loss in empty.values())


def test_boxes_learn_by_the_union_and_scores_by_their_own_pairs() -> None:
    """Box terms of every layer, the initial prediction and the encoder are those of an assigner that says the union."""
    losses, _, _, targets = losses_of(build(assigner=Told(*ROWS)), noise=False)
    by_union, *_ = losses_of(build(assigner=Told(*[UNION] * 5), union_matching=False), noise=False)
    own, *_ = losses_of(build(assigner=Told(*ROWS), union_matching=False), noise=False)
    share = targets.labels.shape[0] / len(UNION)  # sums over the union are divided by its pairs, others by boxes
    for name, loss in losses.items():
        if name.endswith('loss_cls'):
            torch.testing.assert_close(loss, own[name])
        elif not name.endswith('loss_ddf'):
            torch.testing.assert_close(loss, by_union[name] * share)
            assert not torch.isclose(loss, own[name]), name


def test_box_loss_of_the_union_by_hand() -> None:
    losses, predictions, chosen, targets = losses_of(build(assigner=Told(*ROWS)), noise=False)
    assert predictions.refinement is not None and chosen.encoder is not None
    image, query, box = torch.tensor(UNION).unbind(1)
    for name, boxes in (
        ('d1.loss_bbox', predictions.boxes[1]),
        ('pre.loss_bbox', predictions.refinement.initial_boxes[0]),
        ('enc_loss_bbox', chosen.encoder.boxes[0]),
    ):
        distance = (boxes[image, query] - targets.boxes[box]).abs().sum()
        torch.testing.assert_close(losses[name], 5 * distance / len(UNION))


def test_divisors_are_means_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of boxes and of union pairs, in one call: here 3 and 5, and 1 and 7 elsewhere."""
    alone, *_ = losses_of(build(assigner=Told(*ROWS)))
    reduced: list[list[float]] = []

    def mean_of_two(x: Tensor) -> Tensor:
        reduced.append(x.tolist())
        return (x + x.new_tensor([1.0, 7.0])) / 2

    monkeypatch.setattr(set_criterion, 'reduce_mean', mean_of_two)
    losses, *_ = losses_of(build(assigner=Told(*ROWS)))
    assert reduced == [[3.0, 5.0]]
    for name, loss in losses.items():
        union = 'dn_' not in name and not name.endswith('loss_cls')
        factor = 1.0 if name.endswith('loss_ddf') else 5 / 6 if union else 3 / 2
        torch.testing.assert_close(loss, alone[name] * factor, msg=name)


def test_edges_by_hand() -> None:
    """Of a layer before the last: localisation over the pairs, distillation over all queries."""
    criterion = build(assigner=Told(*ROWS))
    losses, predictions, _, targets = losses_of(criterion)
    refinement = predictions.refinement
    assert refinement is not None
    image, query, box = torch.tensor(UNION).unbind(1)
    query = query + NOISY
    boxes = predictions.boxes[1, image, query]
    iou = box_iou_elementwise(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(targets.boxes[box]))
    initial = refinement.initial_boxes[0, image, query]
    aims = edge_targets(initial, targets.boxes[box], refinement.bin_values, refinement.reg_scale)
    localised = criterion.loss_fgl(refinement.corners[1, image, query], aims, iou).sum() / len(UNION)
    torch.testing.assert_close(losses['d1.loss_fgl'], localised)

    weight = predictions.logits[-1].sigmoid().amax(-1)[:, NOISY:]
    matched = torch.zeros(IMAGES, MATCHING, dtype=torch.bool)
    weight[image, query - NOISY], matched[image, query - NOISY] = iou, True
    student, teacher = (refinement.corners[i][:, NOISY:] for i in (1, -1))
    distilled = criterion.loss_ddf(student, teacher, weight)
    shares = balance(4 * len(UNION), 4 * (IMAGES * MATCHING - len(UNION)), IMAGES)
    torch.testing.assert_close(losses['d1.loss_ddf'], balanced_mean(distilled[None], matched[None], *shares)[0])


def test_distillation_of_denoising_weighs_as_that_of_the_matching_queries() -> None:
    """Its own mean over positives and over all others, by the numbers of the matching queries' edges."""
    criterion = build(assigner=Told(*ROWS))
    losses, predictions, _, targets = losses_of(criterion)
    refinement = predictions.refinement
    assert refinement is not None
    rows = [(0, 0, 0), (0, 1, 1), (0, 2, 0), (0, 3, 1), (1, 0, 2), (1, 2, 2)]
    image, query, box = torch.tensor(rows).unbind(1)
    iou = box_iou_elementwise(
        box_cxcywh_to_xyxy(predictions.boxes[0, image, query]), box_cxcywh_to_xyxy(targets.boxes[box])
    )
    weight = predictions.logits[-1].sigmoid().amax(-1)[:, :NOISY]
    matched = torch.zeros(IMAGES, NOISY, dtype=torch.bool)
    weight[image, query], matched[image, query] = iou, True
    distilled = criterion.loss_ddf(refinement.corners[0][:, :NOISY], refinement.corners[-1][:, :NOISY], weight)
    shares = balance(4 * len(UNION), 4 * (IMAGES * MATCHING - len(UNION)), IMAGES)
    torch.testing.assert_close(losses['d0.dn_loss_ddf'], balanced_mean(distilled[None], matched[None], *shares)[0])


@pytest.mark.parametrize('late', [False, True])
def test_the_host_waits_for_the_device_once(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the costs of all matchings, the initial prediction's and the encoder's too, late in the training as well."""
    criterion = build(assigner={**CRITERION['assigner'], 'quality_cost': {'iou_power': 4}})
    criterion.assigner.by_quality = late
    waits = transfers(monkeypatch)
    losses, *_ = losses_of(criterion)
    assert {'d0.loss_fgl', 'd0.loss_ddf', 'd0.dn_loss_ddf'} < losses.keys()
    assert waits == [(LAYERS + 2, 3, MATCHING)]


def test_only_the_students_learn_by_distillation() -> None:
    losses, predictions, *_ = losses_of(build(assigner=Told(*ROWS)))
    torch.manual_seed(3)
    targets, chosen, predictions = truth(2, 1), selection(), refined(MATCHING)
    assert predictions.refinement is not None
    for x in (predictions.logits, predictions.boxes, *predictions.refinement[:3]):
        x.requires_grad_()
    losses = build(assigner=Told(*ROWS))(decoded(predictions, chosen, None), targets)
    total = losses['d0.loss_ddf'] + losses['d1.loss_ddf']
    inputs = [predictions.logits, predictions.boxes, *predictions.refinement[:3]]
    gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    corners = gradients[2]
    assert [gradient is not None and bool(gradient.any()) for gradient in gradients] == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert corners[:-1].any() and not corners[-1].any()


def test_an_encoder_of_other_queries_has_no_part_in_the_union() -> None:
    """It neither votes nor learns by it."""
    torch.manual_seed(3)
    targets, predictions = truth(2, 1), refined(MATCHING)
    wider = Predictions(torch.randn(1, IMAGES, MATCHING + 2, CLASSES).double(), boxes_of(1, IMAGES, MATCHING + 2))
    chosen = selection()._replace(encoder=wider)
    with_encoder = build()(decoded(predictions, chosen), targets)
    alone = build()(decoded(predictions), targets)
    apart = build(union_matching=False)(decoded(predictions, chosen), targets)
    for name, loss in with_encoder.items():
        torch.testing.assert_close(loss, apart[name] if name.startswith('enc_') else alone[name])


def test_boxes_inside_out_are_compared_as_empty_ones() -> None:
    """Where edges have passed each other: finite losses, and a gradient that opens the box again."""
    torch.manual_seed(3)
    targets, predictions = truth(2, 1), refined(MATCHING)
    predictions.boxes[1, :, :, 2:] *= -1
    predictions.boxes.requires_grad_()
    losses = build()(decoded(predictions, selection()), targets)
    assert all(loss.isfinite() for loss in losses.values())
    (gradient,) = torch.autograd.grad(losses['d1.loss_bbox'], predictions.boxes)
    assert (gradient[1][..., 2:] <= 0).all() and (gradient[1][..., 2:] < 0).any()


def test_losses_of_distributions_need_a_decoder_that_refines_them() -> None:
    decoder = DeformableDecoder(num_classes=CLASSES)
    with pytest.raises(InputError, match=r'the decoder is DeformableDecoder: name .*DistributionDecoder'):
        build().check_decoder(decoder)
    build(loss_fgl=None, loss_ddf=None).check_decoder(decoder)
    head = {'type': 'RTDETRHead', 'num_classes': CLASSES, 'criterion': {**CRITERION, **EDGES}}
    with pytest.raises(InputError, match='the decoder is DeformableDecoder'):
        MODELS.build(head)

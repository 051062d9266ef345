"""The denoising generator: its queries, whom they may see, what they answer for, and what their losses count."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from helpers import decoded
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from tolerances import about
from torch import Tensor

from mmdet_iouquery.core import denoising_layout, noisy_truth
from mmdet_iouquery.models.denoising import ContrastiveDenoising
from mmdet_iouquery.models.dense_heads.rtdetr_head import CRITERION
from mmdet_iouquery.structures import DenoisingQueries, Predictions, Targets

CLASSES, DIMS = 4, 8


def build(**settings: Any) -> ContrastiveDenoising:
    cfg = {'type': 'ContrastiveDenoising', 'num_classes': CLASSES, 'embed_dims': DIMS, 'num_denoising': 4, **settings}
    return MODELS.build(cfg).double()


def exact(**settings: Any) -> ContrastiveDenoising:
    """Without noise."""
    return build(label_noise_ratio=0.0, box_noise_scale=0.0, **settings)


def truth(*counts: int) -> Targets:
    """Labels 3, 2, 1, 0, 3, ... and boxes inside the image, of every size."""
    total = sum(counts)
    boxes = torch.rand(total, 4, dtype=torch.float64) * 0.3 + 0.3
    return Targets(CLASSES - 1 - torch.arange(total) % CLASSES, boxes, counts)


def test_queries_without_noise_by_hand() -> None:
    """Two boxes and one, room for four: two groups of two positives and two negatives; the fewer is padded."""
    denoising, targets = exact(), truth(2, 1)
    noisy = denoising(targets, num_queries=3)
    row = denoising.label_embedding.weight
    assert noisy.num_groups == 2 and noisy.queries.position is None
    nothing = row[CLASSES]
    assert not nothing.any()
    for image, content, boxes in (
        (0, [row[3], row[2]], [targets.boxes[0], targets.boxes[1]]),
        (1, [row[1], nothing], [targets.boxes[2], torch.zeros(4).double()]),
    ):
        assert torch.equal(noisy.queries.content[image], torch.stack(content * 4))
        actual = noisy.queries.anchors_unact[image].sigmoid()
        # logits end at those of 1e-5 and 1 - 1e-5
        torch.testing.assert_close(actual, torch.stack(boxes * 4), rtol=1e-9, atol=1.1e-5)
    assert noisy.queries.anchors_unact.isfinite().all()


def test_positives_answer_for_their_box_in_every_group() -> None:
    """Queries 0 and 1, then 4 and 5; 2, 3, 6 and 7 are negatives, and padding answers for nothing."""
    image, query, box = build()(truth(2, 1), 3).pairs
    actual = sorted(zip(image.tolist(), query.tolist(), box.tolist()))
    assert actual == [(0, 0, 0), (0, 1, 1), (0, 4, 0), (0, 5, 1), (1, 0, 2), (1, 4, 2)]


SETTINGS: list[dict[str, Any]] = [
    {},
    {'num_denoising': 9},
    {'contrastive': False},
    {'num_groups': 1, 'num_denoising': 6},
    {'label_noise_ratio': 0.9},
    {'box_noise_scale': 0.2},
    {'contrastive': False, 'box_noise': 'centre_size', 'box_noise_scale': 0.4},
]


@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_layout_and_noise_are_by_the_settings(settings: dict[str, Any]) -> None:
    """Those of the core's functions, by the same draws; the mask is for the matching queries told."""
    denoising, targets = build(**settings), truth(2, 0, 3)
    torch.manual_seed(3)
    noisy = denoising(targets, num_queries=7)
    of_layout = {key: settings[key] for key in ('contrastive', 'num_groups') if key in settings}
    of_noise = {key: settings[key] for key in ('label_noise_ratio', 'box_noise_scale', 'box_noise') if key in settings}
    torch.manual_seed(3)
    layout = denoising_layout(targets.counts, settings.get('num_denoising', 4), **of_layout)
    labels, boxes_unact = noisy_truth(layout, targets.labels, targets.boxes, CLASSES, **of_noise)
    assert torch.equal(noisy.queries.anchors_unact, boxes_unact)
    assert torch.equal(noisy.queries.content, denoising.label_embedding.weight[labels])
    assert torch.equal(noisy.attention_mask, layout.attention_mask(7))
    assert all(map(torch.equal, noisy.pairs, layout.pairs)) and noisy.num_groups == layout.num_groups


def test_a_batch_without_boxes_gives_one_group_of_padding() -> None:
    noisy = build()(truth(0, 0), 2)
    assert not noisy.queries.content.any() and [len(index) for index in noisy.pairs] == [0, 0, 0]
    boxes = noisy.queries.anchors_unact.sigmoid()
    torch.testing.assert_close(boxes, torch.zeros(2, 2, 4).double(), rtol=0, atol=1.1e-5)  # as above
    assert noisy.attention_mask.tolist() == [[False] * 4] * 2 + [[True, True, False, False]] * 2


def test_rows_of_the_labels_seen_learn_and_that_of_padding_does_not() -> None:
    denoising = exact()
    denoising(truth(2, 0), 3).queries.content.sum().backward()
    # labels 3 and 2, in two groups, positive and negative
    assert denoising.label_embedding.weight.grad[:, 0].tolist() == [0, 0, 4, 4, 0]


def losses(predictions: Predictions, targets: Targets, denoising: DenoisingQueries) -> dict[str, Tensor]:
    """Those of denoising alone, for two matching queries that all predict the same."""
    matching = predictions.apply(lambda x: x.new_zeros(*x.shape[:2], 2, x.shape[-1]))
    joined = predictions.before(matching)
    every_loss = MODELS.build(CRITERION)(decoded(joined, None, denoising), targets)
    return {name: loss for name, loss in every_loss.items() if 'dn_' in name}


def predictions_of(queries: int, layers: int = 2, images: int = 2) -> Predictions:
    logits = torch.randn(layers, images, queries, CLASSES, dtype=torch.float64)
    boxes = torch.rand(layers, images, queries, 4, dtype=torch.float64) * 0.4 + 0.2
    return Predictions(logits, boxes)


@pytest.mark.parametrize('settings', [{}, {'contrastive': False, 'box_noise': 'centre_size'}], ids=str)
@pytest.mark.parametrize('counts', [(3, 1), (2, 0), (0, 0)], ids=str)
def test_losses_do_not_depend_on_the_number_of_equal_groups(counts: tuple[int, ...], settings: dict[str, Any]) -> None:
    """One group's predictions said G times cost what they cost once, positives, negatives and padding alike."""
    targets, width = truth(*counts), max(1, *counts)
    single = build(num_denoising=width, **settings)(targets, 2)
    predictions = predictions_of(single.queries.content.shape[1])
    expected = losses(predictions, targets, single)
    assert len(expected) == 6 and expected['dn_loss_cls'] > 0 and (expected['dn_loss_iou'] > 0) == (sum(counts) > 0)
    for groups in (2, 5):
        several = build(num_denoising=width * groups, **settings)(targets, 2)
        if not sum(counts):  # a batch without boxes has one group whatever the room
            assert several.num_groups == 1
            continue
        assert several.num_groups == groups
        repeated = Predictions(*(x.repeat(1, 1, groups, 1) for x in predictions[:2]))
        actual = losses(repeated, targets, several)
        assert actual.keys() == expected.keys()
        for name, loss in actual.items():
            assert loss.item() == about(expected[name].item(), 'doubles'), name


def test_box_losses_are_those_of_the_positives() -> None:
    """Negatives and padding have none: their boxes get no gradient, and no other box does them any."""
    targets = truth(2, 1)
    noisy, predictions = build()(targets, 2), predictions_of(8)
    predictions.boxes.requires_grad_()
    terms = losses(predictions, targets, noisy)
    total = sum(loss for name, loss in terms.items() if 'cls' not in name)
    (gradient,) = torch.autograd.grad(total, predictions.boxes)
    learning = gradient.any(-1)
    assert learning[:, 0].tolist() == [[True, True, False, False] * 2] * 2
    assert learning[:, 1].tolist() == [[True, False, False, False] * 2] * 2


def test_scores_of_negatives_and_padding_learn_background() -> None:
    """Every logit of theirs is pushed down, of a positive all but that of its label."""
    targets = truth(2, 1)
    noisy, predictions = exact()(targets, 2), predictions_of(8)
    logits = torch.zeros_like(predictions.logits).requires_grad_()
    boxes = targets.boxes[[0, 1, 2, 2]].view(1, 2, 2, 4).repeat(2, 1, 4, 1)  # where positives are, exactly
    terms = losses(Predictions(logits, boxes), targets, noisy)
    (gradient,) = torch.autograd.grad(sum(loss for name, loss in terms.items() if 'cls' in name), logits)
    rising = torch.zeros(2, 2, 8, CLASSES, dtype=torch.bool)
    for image, query, label in ((0, 0, 3), (0, 1, 2), (1, 0, 1)):
        rising[:, image, [query, query + 4], label] = True
    assert torch.equal(gradient < 0, rising) and torch.equal(gradient > 0, ~rising)


@pytest.mark.parametrize(
    ('settings', 'counts', 'message'),
    [
        ({}, (4, 4), None),  # as many as there is room for, in each
        ({}, (5, 1), 'has 5 boxes, more than denoising has room for (4)'),
        ({'num_groups': 2}, (2, 1), None),
        ({'num_groups': 2}, (3, 1), 'has 3 boxes, more than denoising has room for (2)'),
    ],
    ids=str,
)
def test_a_crowded_image_is_said_once(settings: dict[str, Any], counts: tuple[int, ...], message: str | None) -> None:
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    MMLogger.get_instance('crowded by hand').addHandler(handler)
    denoising = build(**settings)
    for _ in range(2):
        denoising(truth(*counts), 2)
    assert len(lines) == (message is not None) and all(message in line for line in lines)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'num_denoising': 0}, 'num_denoising must be at least 1, got 0; set denoising=None to do without'),
        ({'num_groups': 0}, r'num_groups must lie in \[1, num_denoising=4\], got 0'),
        ({'num_groups': 5}, r'num_groups must lie in \[1, num_denoising=4\], got 5'),
        ({'num_groups': 2.5}, 'num_groups must be a whole number, got 2.5'),
        ({'label_noise_ratio': 1.5}, r'label_noise_ratio must .*1.*, got 1\.5'),
        ({'box_noise_scale': -0.1}, r'box_noise_scale must .*, got -0\.1'),
        ({'box_noise': 'corner'}, "box_noise must be one of .*, got 'corner'"),
        ({'box_noise': 'centre_size'}, "'corners' with contrastive=True, got 'centre_size'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)

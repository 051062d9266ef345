"""The criterion's sums: what they are divided by, and that each goes under the name of its layer and group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import decoded, transfers
from mmdet.registry import MODELS
from tolerances import about
from torch import Tensor

from mmdet_iouquery.core import box_cxcywh_to_xyxy, generalized_box_iou_elementwise
from mmdet_iouquery.models.dense_heads.rtdetr_head import CRITERION
from mmdet_iouquery.models.losses import SetCriterion, set_criterion
from mmdet_iouquery.structures import DenoisingQueries, EncoderTarget, Predictions, Queries, Selection, Targets

CLASSES, LAYERS, MATCHING = 4, 3, 5
TERMS = ('loss_cls', 'loss_bbox', 'loss_iou')


def build(**settings: Any) -> SetCriterion:
    return MODELS.build({**CRITERION, **settings})


def truth(*counts: int) -> Targets:
    total = sum(counts)
    boxes = torch.rand(total, 4, dtype=torch.float64) * 0.3 + 0.3
    return Targets(torch.arange(total) % CLASSES, boxes, counts)


def predictions(queries: int = MATCHING, layers: int = LAYERS, images: int = 2) -> Predictions:
    logits = torch.randn(layers, images, queries, CLASSES, dtype=torch.float64)
    return Predictions(logits, torch.rand(layers, images, queries, 4, dtype=torch.float64) * 0.4 + 0.2)


def selection(encoder: Predictions, **more: Any) -> Selection:
    queries = Queries(torch.zeros(2, MATCHING, 8), torch.zeros(2, MATCHING, 4))
    return Selection(queries, encoder, encoder_target=EncoderTarget(**more))


def denoising(pairs: list[tuple[int, int, int]], queries: int, groups: int) -> DenoisingQueries:
    """``pairs`` of image, query and ground truth."""
    noisy = Queries(torch.zeros(2, queries, 8), torch.zeros(2, queries, 4))
    index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 3).unbind(1)
    return DenoisingQueries(noisy, torch.zeros(queries + MATCHING, queries + MATCHING).bool(), index, groups)


def every_loss(targets: Targets) -> dict[str, Tensor]:
    """Of the same predictions of decoder, encoder and denoising, whatever the number of processes."""
    torch.manual_seed(5)
    decoder, encoder = predictions(4 + MATCHING), predictions(layers=1)
    pairs = [(int(image), 1, box) for box, image in enumerate(targets.image)]
    more = {'iou_logits': torch.randn(1, 2, MATCHING, dtype=torch.float64), 'score': 'label'}
    return build()(decoded(decoder, selection(encoder, **more), denoising(pairs, 4, groups=2)), targets)


@pytest.mark.parametrize(
    ('counts', 'elsewhere', 'average'),
    [
        ((2, 1), [1], 2.0),  # 3 here and 1 there
        ((2, 1), [3, 0], 2.0),  # of three processes
        ((0, 0), [8], 4.0),  # none here, whose scores count a quarter of what they would alone
        ((1, 0), [0], 1.0),  # the mean is 1/2: at least 1, and not the mean of numbers that are at least 1
        ((0, 0), [1], 1.0),
        ((0, 0), [0], 1.0),
        ((2, 0), [1, 0], 1.0),  # 2, 1 and none
        ((2, 1), [], 3.0),
    ],
    ids=str,
)
def test_sums_are_divided_by_the_mean_number_of_boxes_of_the_processes(
    counts: tuple[int, ...], elsewhere: list[int], average: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them: the decoder's, the encoder's, its quality and denoising, which keeps its own number of groups."""
    targets, reduced = truth(*counts), []
    alone = every_loss(targets)

    def mean_over_processes(x: Tensor) -> Tensor:
        reduced.append(x.item())
        return (x + sum(elsewhere)) / (1 + len(elsewhere))

    monkeypatch.setattr(set_criterion, 'reduce_mean', mean_over_processes)
    losses = every_loss(targets)
    assert reduced == [sum(counts)]  # once, of what is here
    assert len(losses) == 2 * 3 * LAYERS + 4 and losses.keys() == alone.keys()
    for name, loss in losses.items():
        assert loss.item() == about(alone[name].item() * max(1, sum(counts)) / average, 'doubles'), name


def test_each_term_goes_under_its_layers_name() -> None:
    """Of both groups: 5 L1 and 2 (1 - GIoU), summed over two boxes; denoising's over its two groups as well."""
    targets = truth(1, 1)
    everything = predictions(4 + MATCHING)
    # matching queries 2 and 0 hit their boxes, layer i off by i + 1 hundredths
    for image, query in ((0, 2), (1, 0)):
        everything.logits[:, image, 4 + query, targets.labels[image]] = 20.0
        for layer in range(LAYERS):
            shift = torch.tensor([0.01 * (layer + 1), 0, 0, 0])
            everything.boxes[layer, image, 4 + query] = targets.boxes[image] + shift
    pairs = [(0, 0, 0), (1, 1, 1), (0, 2, 0), (1, 3, 1)]
    losses = build()(decoded(everything, None, denoising(pairs, 4, groups=2)), targets)
    assert list(losses) == [
        f'{layer}{group}{term}' for group in ('dn_', '') for layer in ('d0.', 'd1.', '') for term in TERMS
    ]
    for layer, prefix in enumerate(('d0.', 'd1.', '')):
        assert losses[prefix + 'loss_bbox'].item() == pytest.approx(5 * 0.01 * (layer + 1))
        image, query, box = (torch.tensor(index) for index in zip(*pairs))
        noisy, exact = everything.boxes[layer, image, query], targets.boxes[box]
        assert losses[prefix + 'dn_loss_bbox'].item() == pytest.approx(5 * (noisy - exact).abs().sum().item() / (2 * 2))
        giou = generalized_box_iou_elementwise(box_cxcywh_to_xyxy(noisy), box_cxcywh_to_xyxy(exact))
        assert losses[prefix + 'dn_loss_iou'].item() == about(2 * (1 - giou).sum().item() / (2 * 2), 'doubles')


def test_denoising_is_what_the_same_pairs_cost_as_a_match() -> None:
    """With an assigner that says them, over one group: term by term and layer by layer, and both change neither."""
    targets, noisy, matching = truth(2, 1), predictions(4), predictions()
    pairs = [(0, 3, 0), (0, 0, 1), (1, 2, 2)]
    joined = noisy.before(matching)
    losses = build()(decoded(joined, None, denoising(pairs, 4, groups=1)), targets)
    every_layer = [torch.tensor(index).repeat(LAYERS) for index in zip(*pairs)]
    layer = torch.arange(LAYERS).repeat_interleave(len(pairs))

    def fixed_pairs(*_: object) -> set_criterion.Pairs:
        return set_criterion.Pairs(layer, *every_layer)

    expected = build(assigner=fixed_pairs)(decoded(noisy), targets)
    alone = build()(decoded(matching), targets)
    assert len(losses) == 18
    for name, loss in expected.items():
        prefix, _, term = name.rpartition('loss')
        torch.testing.assert_close(losses[f'{prefix}dn_loss{term}'], loss)
        torch.testing.assert_close(losses[name], alone[name])


@pytest.mark.parametrize('counts', [(2, 1), (0, 7), (0, 0)], ids=str)
@pytest.mark.parametrize('queries', [MATCHING, MATCHING + 3])
@pytest.mark.parametrize('even', [True, False])
def test_an_encoders_losses_are_what_it_would_cost_as_a_decoder(
    even: bool, queries: int, counts: tuple[int, ...]
) -> None:
    """Matched with the decoder's layers at once, where it has as many queries; also by an assigner that does not say
    that it makes as many pairs a layer."""
    targets, decoder, encoder = truth(*counts), predictions(), predictions(queries, layers=1)
    criterion = build()
    if not even:
        assigner = criterion.assigner
        criterion.assigner = lambda *given: assigner(*given)
    losses = criterion(decoded(decoder, selection(encoder)), targets)
    of_encoder, of_decoder = (build()(decoded(given), targets) for given in (encoder, decoder))
    assert losses.keys() == of_decoder.keys() | {f'enc_{term}' for term in TERMS}
    for term in TERMS:
        torch.testing.assert_close(losses[f'enc_{term}'], of_encoder[term])
    for name, loss in of_decoder.items():
        torch.testing.assert_close(losses[name], loss)


def test_a_class_agnostic_encoder_is_matched_by_objects() -> None:
    """Also where it says as many queries and classes as the decoder: all boxes are of class 0 to it."""
    targets, decoder, encoder = truth(2, 1), predictions(), predictions(layers=1)
    losses = build()(decoded(decoder, selection(encoder, class_agnostic=True)), targets)
    objects = build()(decoded(encoder), targets._replace(labels=torch.zeros_like(targets.labels)))
    classes = build()(decoded(encoder), targets)
    for term in TERMS:
        torch.testing.assert_close(losses[f'enc_{term}'], objects[term])
        assert not torch.isclose(losses[f'enc_{term}'], classes[term])
        torch.testing.assert_close(losses[term], build()(decoded(decoder), targets)[term])


@pytest.mark.parametrize('class_agnostic', [False, True])
def test_the_host_waits_for_the_device_once(class_agnostic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the costs of all matchings, the encoder's too."""
    waits = transfers(monkeypatch)
    predicted, targets = predictions(), truth(2, 1)
    num_layers, _, num_queries, _ = predicted.logits.shape
    build(union_matching=True)(
        decoded(predicted, selection(predictions(layers=1), class_agnostic=class_agnostic)), targets
    )
    assert waits == [(num_layers + 1, 3, num_queries)]


def test_each_query_learns_the_quality_of_its_own_box() -> None:
    """Exact boxes, and boxes half as wide, whose IoU is 1/2; summed and divided by their number."""
    targets = truth(2, 1)
    boxes = targets.boxes * torch.tensor([1.0, 1.0, 0.5, 1.0]).double()
    boxes[1] = targets.boxes[1]
    encoder = predictions(2, layers=1)
    for image, query, box in ((0, 1, 0), (0, 0, 1), (1, 1, 2)):
        encoder.boxes[0, image, query] = boxes[box]
        encoder.logits[0, image, query, targets.labels[box]] = 20.0
    quality = torch.tensor([[[0.3, -1.0], [9.0, 2.0]]], dtype=torch.float64)
    loss = build()(decoded(predictions(), selection(encoder, iou_logits=quality)), targets)['enc_loss_quality']
    cost = torch.nn.functional.softplus
    expected = cost(torch.tensor(-0.3)) + cost(torch.tensor(-1.0)) + 0.5 * 1.0 + cost(torch.tensor(2.0)) - 0.5 * 2.0
    assert loss.item() == about(expected.item() / 3, 'sum')


def test_an_encoder_may_have_a_class_loss_of_its_own() -> None:
    focal = {'type': 'FocalLoss', 'use_sigmoid': True, 'loss_weight': 3.0}
    targets, decoder, encoder = truth(2, 1), predictions(), predictions(layers=1)
    for score in (None, 'iou', 'label'):
        losses = build(encoder_loss_cls=focal)(decoded(decoder, selection(encoder, score=score)), targets)
        torch.testing.assert_close(losses['enc_loss_cls'], build(loss_cls=focal)(decoded(encoder), targets)['loss_cls'])
        torch.testing.assert_close(losses['loss_cls'], build()(decoded(decoder), targets)['loss_cls'])
    # nor is it another one beside a decoder's loss that knows no soft targets
    soft = {'type': 'IoUVarifocalLoss', 'alpha': 0.3, 'loss_weight': 7.0}
    losses = build(loss_cls=focal, encoder_loss_cls=soft)(decoded(decoder, selection(encoder, score='iou')), targets)
    expected = build(loss_cls=soft)(decoded(encoder), targets)['loss_cls']
    torch.testing.assert_close(losses['enc_loss_cls'], expected)


def test_the_quality_of_boxes_teaches_scores_and_not_boxes() -> None:
    targets, decoder = truth(2, 1), predictions()
    decoder.boxes.requires_grad_()
    decoder.logits.requires_grad_()
    losses = build()(decoded(decoder), targets)
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, [decoder.logits, decoder.boxes], retain_graph=True, allow_unused=True)
        learns = [gradient is not None and bool(gradient.any()) for gradient in gradients]
        assert learns == (['cls' in name, 'cls' not in name]), name


def test_everything_stays_in_the_graph_whatever_the_boxes() -> None:
    """A batch without boxes gives boxes, and the encoder's quality, a gradient of zeros, which DDP waits for."""
    decoder, encoder = predictions(4 + MATCHING), predictions(layers=1)
    quality = torch.randn(1, 2, MATCHING, dtype=torch.float64).requires_grad_()
    inputs = [x.requires_grad_() for x in (*decoder[:2], *encoder[:2])] + [quality]
    chosen = selection(encoder, iou_logits=quality)
    for counts in ((0, 0), (2, 1)):
        targets = truth(*counts)
        pairs = [(int(image), 1, box) for box, image in enumerate(targets.image)]
        losses = build()(decoded(decoder, chosen, denoising(pairs, 4, groups=1)), targets)
        assert all(loss.requires_grad for loss in losses.values())
        gradients = torch.autograd.grad(sum(losses.values()), inputs)
        assert [bool(gradient.any()) for gradient in gradients] == [True, any(counts)] * 2 + [any(counts)]


def test_the_quality_of_a_query_without_a_pair_is_not_read() -> None:
    """Were it infinite; that of the one pair learns alone."""
    targets, encoder = truth(1, 0), predictions(layers=1)
    criterion = build()
    (query,) = criterion.assigner(encoder, targets).query.tolist()
    quality = torch.full((1, 2, MATCHING), torch.inf, dtype=torch.float64)
    quality[0, 0, query] = 0.3
    quality.requires_grad_()
    loss = criterion(decoded(predictions(), selection(encoder, iou_logits=quality)), targets)['enc_loss_quality']
    (gradient,) = torch.autograd.grad(loss, quality)
    assert loss.isfinite() and gradient[0].nonzero().tolist() == [[0, query]]

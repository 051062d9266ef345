"""D-FINE's decoder: what its boxes are made of, how far gradients go, and whose weights it takes."""

from __future__ import annotations

import copy
from typing import Any

import golden_formula as formula
import pytest
import torch
from helpers import golden
from mmdet.registry import MODELS
from test_deformable_decoder import CLASSES, DIMS, memory, queries
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.core import bin_values, distances_to_boxes, expected_distances
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.decoders import DistributionDecoder
from mmdet_iouquery.models.decoders.distribution import QualityHead
from mmdet_iouquery.structures import Predictions, Refinement

LAYERS, BINS = 3, 9


def build(**settings: Any) -> DistributionDecoder:
    """As it starts, in double precision: box and quality heads give 0."""
    small = {'num_layers': LAYERS, 'num_heads': 2, 'feedforward_channels': 16, 'num_levels': 2, 'num_points': [3, 1]}
    cfg = {'type': 'DistributionDecoder', 'num_classes': CLASSES, 'embed_dims': DIMS, 'reg_max': BINS - 1, **small}
    return MODELS.build({**cfg, **settings}).double()


def refining(**settings: Any) -> DistributionDecoder:
    """With heads that answer what the content is."""
    decoder = build(**settings)
    for head in (*decoder.bbox_heads, *decoder.quality_heads, decoder.initial_bbox_head):
        nn.init.normal_(head.layers[-1].weight, std=0.5)
    return decoder


def refinement_of(predictions: Predictions) -> Refinement:
    assert predictions.refinement is not None
    return predictions.refinement


def test_at_first_all_boxes_are_the_anchors_and_all_edges_undecided() -> None:
    decoder, given = build(), queries()
    predictions = decoder(given, memory())
    anchors = given.anchors_unact.sigmoid()
    torch.testing.assert_close(predictions.boxes, anchors.expand(LAYERS, -1, -1, -1), **within(torch.float64))
    torch.testing.assert_close(refinement_of(predictions).initial_boxes[0], anchors)
    assert refinement_of(predictions).corners.shape == (LAYERS, 2, 5, 4, BINS)
    assert not refinement_of(predictions).corners.any()
    # with heads that judge nothing yet, the first layer's scores are those of the initial prediction
    assert torch.equal(predictions.logits[0], refinement_of(predictions).initial_logits[0])


def test_boxes_are_the_initial_ones_moved_by_the_means_of_their_edges() -> None:
    predictions = refining(reg_scale=5.0)(queries(), memory())
    corners, _, initial, values, scale = refinement_of(predictions)
    assert scale == 5.0 and torch.equal(values, bin_values(BINS - 1, 5.0))
    expected = distances_to_boxes(initial, expected_distances(corners, values), scale)
    assert torch.equal(predictions.boxes, expected)
    assert (predictions.boxes[-1] - initial[0]).abs().max() > 1e-3


def test_layers_add_to_the_logits_of_the_edges() -> None:
    """A head of constants adds them whatever the content: after layer i there is the sum of the first i + 1."""
    decoder, added = build(), torch.randn(LAYERS, 4 * BINS, dtype=torch.float64)
    for head, constants in zip(decoder.bbox_heads, added):
        with torch.no_grad():
            head.layers[-1].bias.copy_(constants)
    corners = refinement_of(decoder(queries(), memory())).corners
    expected = added.cumsum(0).view(LAYERS, 1, 1, 4, BINS)
    torch.testing.assert_close(corners, expected.expand_as(corners))


@pytest.mark.parametrize('depth', [1, 2, LAYERS])
def test_prediction_is_the_last_layer_run_and_carries_no_refinement(depth: int) -> None:
    decoder, given, read = refining(), queries(), memory()
    layers = decoder(given, read)
    predictions = decoder.eval()(given, read, num_layers=depth)
    assert predictions.refinement is None
    torch.testing.assert_close(predictions.boxes[0], layers.boxes[depth - 1])
    torch.testing.assert_close(predictions.logits[0], layers.logits[depth - 1])


def test_a_predicted_box_whose_edges_have_passed_has_no_size() -> None:
    """Its centre stays. In training it is left as it is, so that a gradient can open it again."""
    decoder, given, read = build(), queries(), memory()
    with torch.no_grad():
        decoder.bbox_heads[0].layers[-1].bias.unflatten(0, (4, BINS))[::2, 0] = 50.0  # left and right, all inwards
    (trained,), anchors = decoder(given, read, num_layers=1).boxes, given.anchors_unact.sigmoid()
    torch.testing.assert_close(trained, anchors * torch.tensor([1, 1, -1, 1]), **within(torch.float64))
    (predicted,) = decoder.eval()(given, read, num_layers=1).boxes
    torch.testing.assert_close(predicted, anchors * torch.tensor([1, 1, 0, 1]), **within(torch.float64))


def test_how_far_gradients_go() -> None:
    """A layer's box trains all box heads up to it, and not the initial one, whose own box trains no other."""
    decoder = refining()
    predictions = decoder(queries(), memory())
    heads = [head.layers[-1].weight for head in decoder.bbox_heads]
    trained = [*heads, decoder.initial_bbox_head.layers[-1].weight]

    def reached(boxes: Tensor) -> list[bool]:
        gradients = torch.autograd.grad(boxes.sum(), trained, retain_graph=True, allow_unused=True)
        return [gradient is not None and bool(gradient.any()) for gradient in gradients]

    for i in range(LAYERS):
        assert reached(predictions.boxes[i]) == [k <= i for k in range(LAYERS)] + [False]
    assert reached(refinement_of(predictions).initial_boxes) == [False] * LAYERS + [True]


def test_learned_anchors_learn_by_the_initial_boxes() -> None:
    given = queries()
    given.anchors_unact.requires_grad_()
    predictions = refining()(given, memory())
    (gradient,) = torch.autograd.grad(refinement_of(predictions).initial_boxes.sum(), given.anchors_unact)
    initial = refinement_of(predictions).initial_boxes[0].detach()
    assert (gradient.abs() > 0.1 * initial * (1 - initial)).float().mean() > 0.9


def test_one_box_head_is_as_equal_heads_of_all_layers() -> None:
    """In boxes, scores and, summed over the layers, gradients."""
    shared, apart = refining(share_bbox_head=True), build()
    state = shared.state_dict()
    copies = {
        key.replace('bbox_heads.0', f'bbox_heads.{i}'): value
        for key, value in state.items()
        for i in range(LAYERS)
        if key.startswith('bbox_heads.')
    }
    apart.load_state_dict({**state, **copies})
    given, read = queries(), memory()
    ours, theirs = shared(given, read), apart(given, read)
    for actual, expected in zip(ours[:2], theirs[:2]):
        assert torch.equal(actual, expected)
        actual.square().sum().backward(retain_graph=True)
        expected.square().sum().backward(retain_graph=True)
    summed = sum(head.layers[0].weight.grad for head in apart.bbox_heads)
    torch.testing.assert_close(shared.bbox_heads[0].layers[0].weight.grad, summed)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*bbox_heads\.1'):
        shared.load_state_dict(apart.state_dict())


def test_position_codes_of_every_layer_or_of_the_first_boxes_alone() -> None:
    """As often is the code made; learned codes are added to either."""
    given, read = queries(), memory()
    given = given._replace(position=torch.randn_like(given.content))
    for choice, times in (('per_layer', LAYERS), ('once', 1)):
        decoder, made, taken = refining(position_code=choice), [], []
        decoder.query_pos_head.register_forward_hook(lambda _, args, code, made=made: made.append((args[0], code)))
        for layer in decoder.layers:
            layer.register_forward_pre_hook(lambda _, args, taken=taken: taken.append(args[1:3]))
        decoder(given, read)
        assert len(made) == times and len(taken) == LAYERS
        torch.testing.assert_close(made[0][0], given.anchors_unact.sigmoid())
        for i, (position, _) in enumerate(taken):
            torch.testing.assert_close(position, made[min(i, times - 1)][1] + given.position)
        assert not torch.equal(taken[0][1], taken[-1][1]), 'the boxes that layers read around go on'


@pytest.mark.parametrize('act', [None, 'SiLU'])
def test_quality_is_the_authors(act: str | None) -> None:
    """What the estimator adds to scores of zero, of their corners."""
    reference = golden('next_units')
    head = QualityHead(act_cfg=act and {'type': act})
    weights = {
        key: torch.from_numpy(formula.weight(f'reg_conf.{key}', tuple(value.shape)))
        for key, value in head.state_dict().items()
    }
    head.load_state_dict(weights)
    corners = torch.from_numpy(reference['corner_logits']).unflatten(-1, (4, -1))
    expected = torch.from_numpy(reference['lqe_silu' if act else 'lqe'])
    torch.testing.assert_close(head(corners).expand_as(expected), expected, **within(torch.float32))


def test_quality_depends_on_the_certainty_of_edges_alone() -> None:
    """Bins may change places, and a constant may be added to an edge's logits."""
    head = QualityHead().double()
    nn.init.normal_(head.layers[-1].weight)
    corners = torch.randn(2, 5, 4, 33, dtype=torch.float64)
    shifted = corners[..., torch.randperm(33)] + torch.randn(2, 5, 4, 1, dtype=torch.float64)
    torch.testing.assert_close(head(shifted), head(corners))
    assert (head(corners * 2) - head(corners)).abs().max() > 1e-3


def test_weights_of_another_scale_do_not_load() -> None:
    decoder = build(reg_scale=4.0)
    state = decoder.state_dict()
    assert build(reg_scale=4.0).load_state_dict(state)
    other = build(reg_scale=8.0)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(InputError, match=r'trained with reg_scale=4 and this decoder has reg_scale=8'):
        other.load_state_dict(state)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in before.items()), 'nothing was loaded'
    with pytest.raises(InputError, match=r'trained with up=0\.5 and this decoder has up=0\.25'):
        build(up=0.25).load_state_dict(state)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'reg_max': 31}, r'reg_max must be even.* got 31: name 30 or 32; D-FINE has 32$'),
        ({'reg_max': 2}, r'reg_max must be .*4.*2'),
        ({'reg_scale': 0.0}, r'reg_scale and up must be above 0'),
        ({'reg_scale': '4'}, r"reg_scale must be a number of at least 0, got '4'"),
        ({'up': -0.5}, r'up must be a number of at least 0, got -0.5'),
        ({'num_points': [3, 1, 2]}, r'num_points=\[3, 1, 2\] names the points of 3 levels, but num_levels is 2'),
        ({'fusion': 'sum'}, r"fusion must be one of .*got 'sum'"),
        ({'query_pos': {'layers': 3}}, r"query_pos has 'layers'; it knows hidden_dims, num_layers, act_cfg, clamp"),
        ({'position_code': 'twice'}, r"position_code must be one of \['per_layer', 'once'\], got 'twice'"),
        ({'share_bbox_head': 1}, r'share_bbox_head must be True or False, got 1'),
        ({'ffn': 'swiglu', 'feedforward_channels': 9}, r'feedforward_channels must be even .* got 9: name 10'),
        ({'norm': 'L2'}, r"norm must be one of \['LN', 'RMS'\], got 'L2'"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**settings)


def test_position_codes_are_held_at_ten() -> None:
    """Also where the boxes are of every size."""
    decoder = build()
    for layer in decoder.query_pos_head.layers:
        nn.init.normal_(layer.weight, std=50.0)
    codes: Tensor = decoder.query_pos_head(torch.rand(64, 4, dtype=torch.float64))
    assert codes.abs().max().item() == 10.0

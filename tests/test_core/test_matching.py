"""Matching: costs by the formula, assignments by exhaustive search."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import golden_formula as formula
import numpy as np
import pytest
import torch
from helpers import golden
from tolerances import about, within

from mmdet_iouquery.core import (
    MatchCosts,
    QualityCost,
    box_cxcywh_to_xyxy,
    generalized_box_iou_elementwise,
    hungarian_pairs,
    union_pairs,
)


def test_cost_of_one_pair_by_hand() -> None:
    logits = torch.tensor([0.3, -1.2], dtype=torch.float64).view(1, 1, 1, 2)
    box, truth = torch.tensor([0.5, 0.5, 0.2, 0.2]).double(), torch.tensor([0.6, 0.5, 0.2, 0.4]).double()
    cost = MatchCosts()(logits, box.view(1, 1, 1, 4), torch.tensor([1]), truth[None], torch.tensor([0]))
    p = torch.sigmoid(torch.tensor(-1.2)).double()
    focal = 0.25 * (1 - p) ** 2 * -torch.log(p) - 0.75 * p**2 * -torch.log(1 - p)
    giou = generalized_box_iou_elementwise(box_cxcywh_to_xyxy(box), box_cxcywh_to_xyxy(truth))
    assert cost.item() == about((2 * focal + 5 * 0.3 - 2 * giou).item())


def test_cost_of_sure_scores_is_that_of_1e_8() -> None:
    """Where a probability is 0 or 1 exactly: a quarter of -log(1e-8), and three quarters less."""
    cost = MatchCosts().class_cost(torch.tensor([-200.0, 200.0], dtype=torch.float64))
    assert cost.tolist() == about([0.25 * 8 * math.log(10), -0.75 * 8 * math.log(10)], 'doubles')


def test_quality_cost_of_one_pair_by_hand() -> None:
    """Equal boxes shifted by half a width: IoU 1/3. Power 1 and 4; a box inside out counts as empty, at cost 0."""
    logits = torch.tensor([[0.3, -1.2], [5.0, 5.0]]).view(1, 1, 2, 2)
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.6, 0.5, -0.2, 0.2]]).view(1, 1, 2, 4)
    truth, image = torch.tensor([[0.6, 0.5, 0.2, 0.2]]), torch.tensor([0])
    p = 1 / (1 + math.exp(1.2))
    for power in (1.0, 4.0):
        cost = QualityCost(iou_power=power)(logits, boxes, torch.tensor([1]), truth, image)
        assert cost.flatten().tolist() == about([-p / 3**power, 0.0], 'sum')


@pytest.mark.parametrize(('epoch', 'costs'), [(0, MatchCosts()), (45, QualityCost())])
def test_matchings_before_and_after_the_change_are_the_authors(epoch: int, costs: Any) -> None:
    """DEIMv2's matcher, whose change is at epoch 45, on the same predictions."""
    reference = golden('next_units')
    logits, boxes = (torch.from_numpy(reference[name])[None] for name in ('logits', 'predicted_boxes'))
    (labels, truth), counts = golden_truth(), (4, 2)
    image = torch.tensor([0] * 4 + [1] * 2)
    _, query, matched = hungarian_pairs(costs(logits, boxes, labels, truth, image), counts)
    for i, first in enumerate((0, 4)):
        in_image = image[matched] == i
        ours = set(zip(query[in_image].tolist(), (matched[in_image] - first).tolist()))
        assert ours == set(zip(*reference[f'match/epoch_{epoch}_{i}'].tolist()))


def golden_truth() -> tuple[torch.Tensor, torch.Tensor]:
    rows = formula.targets('units', 2, [4, 2], 6)
    labels, boxes = (np.concatenate([np.asarray(column) for column in parts]) for parts in zip(*rows))
    return torch.from_numpy(labels).long(), torch.from_numpy(boxes)


def test_laws_of_the_quality_cost() -> None:
    """In [-1, 0]; the same for boxes moved or stretched together; in the queries' order; falls with score and IoU."""
    logits, boxes = torch.randn(2, 1, 6, 3), torch.rand(2, 1, 6, 4) * 0.3 + 0.3
    truth, labels, image = torch.rand(4, 4) * 0.3 + 0.3, torch.tensor([0, 1, 2, 1]), torch.zeros(4, dtype=torch.long)

    def cost(logits: torch.Tensor, boxes: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return QualityCost()(logits, boxes, labels, truth, image)

    before = cost(logits, boxes, truth)
    assert ((before <= 0) & (before >= -1)).all() and (before < 0).any()
    scale, shift = torch.tensor([2.0, 0.5, 2.0, 0.5]), torch.tensor([0.3, -0.1, 0.0, 0.0])
    torch.testing.assert_close(cost(logits, boxes * scale + shift, truth * scale + shift), before, **within('unit'))
    torch.testing.assert_close(cost(logits.flip(2), boxes.flip(2), truth), before.flip(2))
    overlapping = before < 0
    assert (cost(logits + 1, boxes, truth) < before)[overlapping].all()
    exact = cost(logits, truth[:1].expand_as(boxes), truth)[:, 0]
    assert (exact <= before[:, 0]).all()
    torch.testing.assert_close(exact, -logits[..., 0].sigmoid()[:, 0])


def test_ties_of_the_quality_cost_are_matched_all_the_same() -> None:
    """Nothing overlaps, so everything costs 0: each box has a query of its own, the same ones every time."""
    logits, boxes = torch.zeros(1, 1, 5, 1), torch.full((1, 1, 5, 4), 0.1)
    truth = torch.full((3, 4), 0.8)
    cost = QualityCost()(logits, boxes, torch.zeros(3, dtype=torch.long), truth, torch.zeros(3, dtype=torch.long))
    assert (cost == 0).all()
    pairs = [[index.tolist() for index in hungarian_pairs(cost, (3,))] for _ in range(3)]
    assert pairs[0] == pairs[1] == pairs[2] and len(set(pairs[0][1])) == 3 and pairs[0][2] == [0, 1, 2]


@pytest.mark.parametrize('costs', [MatchCosts(), QualityCost()])
@pytest.mark.parametrize('half', ['logits', 'boxes', 'truth'])
def test_costs_are_in_single_precision(half: str, costs: Any) -> None:
    """Of numbers that half precision holds exactly: they cost what they cost in single precision."""
    double = {
        'logits': torch.randn(1, 1, 4, 2).half(),
        'boxes': (torch.rand(1, 1, 4, 4) * 0.4 + 0.2).half(),
        'truth': (torch.rand(3, 4) * 0.4 + 0.2).half(),
    }
    labels, image = torch.tensor([0, 1, 1]), torch.zeros(3, dtype=torch.long)
    single = {key: value.float() for key, value in double.items()}
    results = []
    for values in (single, {**single, half: double[half]}):
        results.append(costs(values['logits'], values['boxes'], labels, values['truth'], image))
    assert results[1].dtype == torch.float32 and torch.equal(*results)


@pytest.mark.parametrize('costs', [MatchCosts(), QualityCost()])
def test_batched_costs_equal_one_image_at_a_time(costs: Any) -> None:
    logits, boxes = torch.randn(3, 2, 7, 4), torch.rand(3, 2, 7, 4) * 0.5 + 0.1
    labels, truth, image = torch.randint(4, (5,)), torch.rand(5, 4) * 0.5 + 0.1, torch.tensor([0, 0, 1, 1, 1])
    batched = costs(logits, boxes, labels, truth, image)
    for t in range(5):
        b = image[t]
        alone = costs(logits[:, b : b + 1], boxes[:, b : b + 1], labels[t : t + 1], truth[t : t + 1], torch.tensor([0]))
        torch.testing.assert_close(batched[:, t], alone[:, 0])


def test_assignment_is_the_cheapest() -> None:
    cost = torch.randn(2, 5, 4)
    counts = (2, 0, 3)
    layer, query, truth = hungarian_pairs(cost, counts)
    assert layer.tolist() == [0] * 5 + [1] * 5
    for i in range(2):
        for rows in ([0, 1], [2, 3, 4]):
            total = sum(cost[i, t, q] for q, t in zip(query[layer == i], truth[layer == i]) if t in rows)
            best = min(sum(cost[i, t, q] for t, q in zip(rows, p)) for p in permutations(range(4), len(rows)))
            assert total.item() == pytest.approx(best.item())


def test_more_boxes_than_queries() -> None:
    layer, query, truth = hungarian_pairs(torch.randn(1, 9, 4, requires_grad=True), (9,))
    assert len(layer) == 4 and sorted(query.tolist()) == [0, 1, 2, 3] and len(set(truth.tolist())) == 4


def test_no_boxes() -> None:
    assert [len(part) for part in hungarian_pairs(torch.zeros(3, 0, 4), (0, 0))] == [0, 0, 0]


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), float('-inf')])
def test_broken_costs_do_not_stop_the_solver(bad: float) -> None:
    """And count as the worst there is, also those below all others."""
    cost = torch.zeros(1, 2, 3)
    cost[0, :, 0] = bad
    _, query, truth = hungarian_pairs(cost, (2,))
    assert len(set(query.tolist())) == 2 and truth.tolist() == [0, 1]
    assert 0 not in query.tolist()


def test_the_union_is_the_authors() -> None:
    """Five matchings of two images, in which queries and boxes repeat, and their union."""
    reference = golden('next_units')
    columns: list[tuple[int, int, int]] = []
    first = (0, 4)
    for layer in range(5):
        for image in range(2):
            columns += [(image, q, t + first[image]) for q, t in reference[f'union/in_{layer}_{image}'].T.tolist()]
    image, query, truth = union_pairs(*torch.tensor(columns).unbind(1))
    for i in range(2):
        ours = set(zip(query[image == i].tolist(), (truth[image == i] - first[i]).tolist()))
        assert ours == {(q, t) for q, t in reference[f'union/out_{i}'].T.tolist()}


def test_each_query_has_its_most_frequent_box_in_a_union() -> None:
    """Query 2 of image 0: box 1 twice, box 0 once. Query 0: both once, so the first. Image 1 counts apart."""
    votes = [(0, 2, 1), (0, 0, 1), (0, 2, 0), (0, 0, 0), (0, 2, 1), (1, 2, 4)]
    for order in (votes, votes[::-1]):
        union = union_pairs(*torch.tensor(order).unbind(1))
        assert [*zip(*(index.tolist() for index in union))] == [(0, 0, 0), (0, 2, 1), (1, 2, 4)]


def test_the_union_of_equal_matchings_is_the_matching_and_of_none_is_empty() -> None:
    matching = torch.tensor([(0, 5, 0), (0, 3, 1), (1, 0, 2)])
    union = union_pairs(*matching.repeat(4, 1).unbind(1))
    assert sorted(zip(*(index.tolist() for index in union))) == sorted(map(tuple, matching.tolist()))
    assert all(index.shape == (0,) for index in union_pairs(*torch.zeros(3, 0, dtype=torch.long)))

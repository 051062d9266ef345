"""Matching: costs by the formula, assignments by exhaustive search."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from helpers import golden

from mmdet_iouquery.core import (
    MatchCosts,
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
    assert cost.item() == pytest.approx((2 * focal + 5 * 0.3 - 2 * giou).item(), abs=1e-5)


def test_cost_of_sure_scores_is_that_of_1e_8() -> None:
    """Where a probability is 0 or 1 exactly: a quarter of -log(1e-8), and three quarters less."""
    cost = MatchCosts().class_cost(torch.tensor([-200.0, 200.0], dtype=torch.float64))
    assert cost.tolist() == pytest.approx([0.25 * 8 * math.log(10), -0.75 * 8 * math.log(10)], rel=1e-6)


@pytest.mark.parametrize('half', ['logits', 'boxes', 'truth'])
def test_costs_are_in_single_precision(half: str) -> None:
    """Of numbers that half precision holds exactly: they cost what they cost in single precision."""
    given = {
        'logits': torch.randn(1, 1, 4, 2).half(),
        'boxes': (torch.rand(1, 1, 4, 4) * 0.4 + 0.2).half(),
        'truth': (torch.rand(3, 4) * 0.4 + 0.2).half(),
    }
    labels, image = torch.tensor([0, 1, 1]), torch.zeros(3, dtype=torch.long)
    single = {key: value.float() for key, value in given.items()}
    costs = []
    for values in (single, {**single, half: given[half]}):
        costs.append(MatchCosts()(values['logits'], values['boxes'], labels, values['truth'], image))
    assert costs[1].dtype == torch.float32 and torch.equal(*costs)


def test_batched_costs_equal_one_image_at_a_time() -> None:
    logits, boxes = torch.randn(3, 2, 7, 4), torch.rand(3, 2, 7, 4) * 0.5 + 0.1
    labels, truth, image = torch.randint(4, (5,)), torch.rand(5, 4) * 0.5 + 0.1, torch.tensor([0, 0, 1, 1, 1])
    together = MatchCosts()(logits, boxes, labels, truth, image)
    for t in range(5):
        b = image[t]
        alone = MatchCosts()(
            logits[:, b : b + 1], boxes[:, b : b + 1], labels[t : t + 1], truth[t : t + 1], torch.tensor([0])
        )
        torch.testing.assert_close(together[:, t], alone[:, 0])


def test_assignment_is_the_cheapest() -> None:
    cost = torch.randn(2, 5, 4)
    counts = (2, 0, 3)
    layer, query, truth = hungarian_pairs(cost, counts)
    assert layer.tolist() == [0] * 5 + [1] * 5
    for i in range(2):
        for rows in ([0, 1], [2, 3, 4]):
            mine = sum(cost[i, t, q] for q, t in zip(query[layer == i], truth[layer == i]) if t in rows)
            best = min(sum(cost[i, t, q] for t, q in zip(rows, p)) for p in permutations(range(4), len(rows)))
            assert mine.item() == pytest.approx(best.item())


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
    one = torch.tensor([(0, 5, 0), (0, 3, 1), (1, 0, 2)])
    union = union_pairs(*one.repeat(4, 1).unbind(1))
    assert sorted(zip(*(index.tolist() for index in union))) == sorted(map(tuple, one.tolist()))
    assert all(index.shape == (0,) for index in union_pairs(*torch.zeros(3, 0, dtype=torch.long)))

"""Box formats and overlaps against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from tolerances import about
from torch import Tensor

from mmdet_iouquery.core import (
    box_cxcywh_to_xyxy,
    box_iou_elementwise,
    box_xyxy_to_cxcywh,
    complete_box_iou_elementwise,
    distance_box_iou_elementwise,
    generalized_box_iou_elementwise,
    inverse_sigmoid,
)


def test_formats_by_hand() -> None:
    assert box_cxcywh_to_xyxy(torch.tensor([0.5, 0.4, 0.2, 0.6])).tolist() == pytest.approx([0.4, 0.1, 0.6, 0.7])
    assert box_xyxy_to_cxcywh(torch.tensor([0.4, 0.1, 0.6, 0.7])).tolist() == pytest.approx([0.5, 0.4, 0.2, 0.6])


def test_formats_are_inverse_in_any_shape() -> None:
    boxes = torch.rand(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(box_xyxy_to_cxcywh(box_cxcywh_to_xyxy(boxes)), boxes)


@pytest.mark.parametrize(
    ('a', 'b', 'iou', 'giou'),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0, 1.0),
        # intersection 1, union 7, hull 9
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),
        # apart: union 2, hull 3
        ([0, 0, 1, 1], [2, 0, 3, 1], 0.0, -1 / 3),
        # one inside the other: 1 / 4, hull is the larger
        ([0, 0, 2, 2], [0, 0, 1, 1], 0.25, 0.25),
        # intersection 2 x 1, areas 8 and 8, hull from (1, 1) to (5, 6)
        ([1, 1, 5, 3], [2, 2, 4, 6], 1 / 7, 1 / 7 - 6 / 20),
        # no area at all: not NaN
        ([1, 1, 1, 1], [1, 1, 1, 1], 0.0, 0.0),
    ],
)
def test_overlaps_by_hand(a: list, b: list, iou: float, giou: float) -> None:
    a_xyxy, b_xyxy = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert box_iou_elementwise(a_xyxy, b_xyxy).item() == pytest.approx(iou)
    assert generalized_box_iou_elementwise(a_xyxy, b_xyxy).item() == pytest.approx(giou)
    assert generalized_box_iou_elementwise(b_xyxy, a_xyxy).item() == pytest.approx(giou)


@pytest.mark.parametrize(
    ('a', 'b', 'iou', 'shift', 'aspects'),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0, 0.0, (1, 1)),
        # centres sqrt(2) apart, diagonal of the hull sqrt(18)
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 2 / 18, (1, 1)),
        ([0, 0, 1, 1], [2, 0, 3, 1], 0.0, 4 / 10, (1, 1)),
        # centres 1 apart, diagonal sqrt(20)
        ([0, 0, 2, 2], [0, 0, 4, 2], 0.5, 1 / 20, (1, 2)),
        # centres (3, 2) and (3, 4), hull from (1, 1) to (5, 6)
        ([1, 1, 5, 3], [2, 2, 4, 6], 1 / 7, 4 / 41, (2, 0.5)),
    ],
)
def test_distance_and_complete_iou_by_hand(
    a: list, b: list, iou: float, shift: float, aspects: tuple[float, float]
) -> None:
    """IoU less the squares of the centres' distance over the diagonal; less v^2 / (1 - IoU + v) for the aspects."""
    v = 4 / math.pi**2 * (math.atan(aspects[0]) - math.atan(aspects[1])) ** 2
    a_xyxy, b_xyxy = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    for first, second in ((a_xyxy, b_xyxy), (b_xyxy, a_xyxy)):
        assert distance_box_iou_elementwise(first, second).item() == pytest.approx(iou - shift)
        complete = iou - shift - (v * v / (1 - iou + v) if v else 0)
        assert complete_box_iou_elementwise(first, second).item() == pytest.approx(complete)


@pytest.mark.parametrize(
    'overlap',
    [
        box_iou_elementwise,
        generalized_box_iou_elementwise,
        distance_box_iou_elementwise,
        complete_box_iou_elementwise,
    ],
)
def test_overlaps_of_any_shapes_are_those_of_each_two_boxes(overlap: Callable[[Tensor, Tensor], Tensor]) -> None:
    """(3, 1, 4) against (2, 4): each of three with each of two."""
    low = torch.rand(5, 2, dtype=torch.float64)
    boxes = torch.cat([low, low + 0.1 + torch.rand(5, 2, dtype=torch.float64)], dim=1)
    actual = overlap(boxes[:3, None], boxes[3:])
    expected = [[overlap(a, b) for b in boxes[3:]] for a in boxes[:3]]
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(overlap(boxes[3:], boxes[:3, None]), actual)


def test_boxes_without_area_have_finite_overlaps() -> None:
    point = torch.tensor([1.0, 1.0, 1.0, 1.0])
    for overlap in (distance_box_iou_elementwise, complete_box_iou_elementwise):
        assert overlap(point, point).item() == 0
        assert torch.isfinite(overlap(point, torch.tensor([0.0, 0.0, 3.0, 3.0])))


def test_inverse_sigmoid_is_inverse_and_finite() -> None:
    x = torch.linspace(-10, 10, 41, dtype=torch.float64)
    # a sigmoid of 10 differs from 1 by 5e-5, of which a double tells eleven digits
    torch.testing.assert_close(inverse_sigmoid(x.sigmoid()), x, rtol=0, atol=1e-10)
    ends = inverse_sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
    assert ends.tolist() == about([-math.log(1e5)] * 2 + [math.log(1e5)] * 2)

"""Top-k choices against a search by loops."""

from __future__ import annotations

import pytest
import torch

from mmdet_iouquery.core import gather_tokens, top_detections, top_tokens, without_overlaps


@pytest.mark.parametrize('num_classes', [1, 2, 80])
def test_detections_equal_brute_force(num_classes: int) -> None:
    logits = torch.randn(2, 30, num_classes)
    scores, labels, query = top_detections(logits, 20)
    for image in range(2):
        pairs = sorted(
            ((logits[image, q, c].sigmoid().item(), q, c) for q in range(30) for c in range(num_classes)), reverse=True
        )[:20]
        assert scores[image].tolist() == pytest.approx([p[0] for p in pairs])
        assert list(zip(query[image].tolist(), labels[image].tolist())) == [p[1:] for p in pairs]


def test_one_query_may_be_two_detections_and_no_class_is_void() -> None:
    logits = torch.full((1, 3, 2), -9.0)
    logits[0, 1] = torch.tensor([2.0, 3.0])
    _, labels, query = top_detections(logits, 2)
    assert query.tolist() == [[1, 1]] and labels.tolist() == [[1, 0]]


def test_more_detections_than_pairs() -> None:
    assert top_detections(torch.randn(1, 3, 2), 300)[0].shape == (1, 6)


@pytest.mark.parametrize(('wanted', 'given'), [(1, 1), (50, 50), (300, 84), (1000, 84)])
def test_tokens_are_the_best_and_clamped(wanted: int, given: int) -> None:
    score = torch.randn(2, 84)
    index = top_tokens(score, wanted)
    assert index.shape == (2, given)
    for image in range(2):
        assert score[image][index[image]].tolist() == sorted(score[image].tolist(), reverse=True)[:given]


def test_excluded_tokens_come_last() -> None:
    score = torch.tensor([[9.0, 1.0, 8.0, 2.0]])
    excluded = torch.tensor([[True, False, True, False]])
    assert top_tokens(score, 2, excluded).tolist() == [[3, 1]]
    assert set(top_tokens(score, 4, excluded)[0, 2:].tolist()) == {0, 2}
    # whatever their score, and the others'
    assert top_tokens(score - 50, 2, excluded).tolist() == [[3, 1]]
    assert top_tokens((score - 3e4).half(), 2, torch.tensor([[True, False, True, True]]))[0, 0] == 1


def test_overlaps_by_hand() -> None:
    """The second overlaps the first by 1/2, the third the second by 5/7, and the first by 1/3 only."""
    boxes = torch.tensor([[0.0, 0.0, 3.0, 1.0], [1.0, 0.0, 4.0, 1.0], [1.5, 0.0, 4.5, 1.0], [8.0, 0.0, 9.0, 1.0]])
    assert without_overlaps(boxes, 0.4).tolist() == [True, False, True, True]
    assert without_overlaps(boxes, 0.3).tolist() == [True, False, False, True]
    assert without_overlaps(boxes, 0.5).tolist() == [True, True, False, True]
    assert without_overlaps(boxes[:0], 0.5).tolist() == []


def test_gather_tokens() -> None:
    tokens = torch.arange(24.0).view(2, 4, 3)
    actual = gather_tokens(tokens, torch.tensor([[2, 0], [1, 1]])).tolist()
    assert actual == [[[6, 7, 8], [0, 1, 2]], [[15, 16, 17], [15, 16, 17]]]

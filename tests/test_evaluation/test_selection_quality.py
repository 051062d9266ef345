"""Numbers of selected queries, against other ways to compute them."""

from __future__ import annotations

import numpy as np
import pytest

from mmdet_iouquery.errors import InputError
from mmdet_iouquery.evaluation.selection_quality import (
    Objects,
    SelectedQueries,
    best_overlap,
    both_above,
    calibration_error,
    compare_with_objects,
    rank_correlation,
    selection_quality,
)

OBJECTS = Objects(np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 40.0, 10.0]]), np.array([2, 5]))


def random_queries(number: int = 500, seed: int = 0) -> SelectedQueries:
    rng = np.random.default_rng(seed)
    ious = rng.random(number)
    scores = np.clip(ious**2 + 0.3 * rng.standard_normal(number), 0, 1)
    return SelectedQueries(scores, ious, rng.random(number) < 0.7, np.sort(rng.integers(0, 9, number)))


def test_overlap_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 5], [5, 0, 15, 10], [100, 100, 110, 110], [22.0, 0, 40, 10]])
    ious, which = best_overlap(boxes, OBJECTS)
    assert np.allclose(ious, [0.5, 50 / 150, 0, 0.9]) and which[[0, 1, 3]].tolist() == [0, 0, 1]
    labels, scores = np.array([2, 5, 2, 5]), np.array([0.9, 0.8, 0.7, 0.6])
    comparison = compare_with_objects(boxes, scores, labels, OBJECTS)
    assert comparison.right_class.tolist() == [True, False, False, True]
    assert not compare_with_objects(boxes, scores, None, OBJECTS).right_class.any()
    nothing = compare_with_objects(boxes, scores, labels, Objects(np.zeros((0, 4)), np.zeros(0, int)))
    assert nothing.ious.tolist() == [0] * 4 and not nothing.right_class.any()


def test_counts_by_loops() -> None:
    queries = random_queries()
    quality = selection_quality(queries)
    pairs = list(zip(queries.scores, queries.ious))
    both = sum(1 for score, iou in pairs if score > 0.5 and iou > 0.5)
    assert quality.both_above == both and quality.queries == 500 and quality.images == 9
    assert quality.prop_both == pytest.approx(100 * both / 500)
    assert quality.score_above == sum(1 for score, _ in pairs if score > 0.5)
    assert quality.prop_score == pytest.approx(100 * quality.score_above / 500)
    right = [is_right for is_right, (_, iou) in zip(queries.right_class, pairs) if iou > 0.5]
    assert quality.iou_above == len(right) and quality.right_class == pytest.approx(sum(right) / len(right))
    thresholds = np.linspace(0, 1, 11)
    expected = [sum(1 for score, iou in pairs if min(score, iou) > t) for t in thresholds]
    assert both_above(queries, thresholds).tolist() == expected


def test_rank_correlation_is_pearsons_of_ranks_and_knows_no_scale() -> None:
    queries = random_queries()
    ranks = [np.argsort(np.argsort(x)) for x in (queries.ious, queries.ious**3)]
    assert np.array_equal(*ranks) and rank_correlation(queries.ious, queries.ious**3) == pytest.approx(1)
    a, b = queries.ious, np.random.default_rng(1).random(500)
    by_hand = np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]
    assert rank_correlation(a, b) == pytest.approx(by_hand)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, np.zeros(500)) is None and rank_correlation(a[:1], b[:1]) is None


def test_calibration_error_by_loops() -> None:
    queries = random_queries()
    total = 0.0
    for low in np.arange(10) / 10:
        high = low + 0.1 if low < 0.85 else 1.1
        inside = [(s, i) for s, i in zip(queries.scores, queries.ious) if low - 1e-12 <= s < high - 1e-12]
        if inside:
            scores, ious = zip(*inside)
            total += len(inside) / 500 * abs(sum(scores) / len(scores) - sum(ious) / len(ious))
    assert calibration_error(queries.scores, queries.ious) == pytest.approx(total)
    assert calibration_error(queries.ious, queries.ious) == 0
    assert calibration_error(np.ones(4), np.zeros(4)) == 1


def test_joining_numbers_images_on() -> None:
    a, b = random_queries(50), random_queries(30, seed=1)
    joined = SelectedQueries.joined([a, b])
    total = selection_quality(a).images + selection_quality(b).images
    assert len(joined.scores) == 80 and selection_quality(joined).images == total
    assert selection_quality(joined).both_above == selection_quality(a).both_above + selection_quality(b).both_above
    assert SelectedQueries.joined([a]).image.tolist() == a.image.tolist()
    with pytest.raises(InputError, match='no selected queries'):
        selection_quality(SelectedQueries.joined([]))

"""The evaluator in C++: pycocotools' arrays and numbers, but for the rounding of a precision of 1."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from coco_cases import NUMBERS, SQUARE, Case, grid, make_case, random_case, with_faster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_iouquery.evaluation.faster_coco import FasterCOCOeval

pytestmark = with_faster


def both(case: Case, limits: Sequence[int] = (100, 300, 1000), use_classes: bool = True) -> list[COCOeval]:
    """pycocotools' evaluator and ours after evaluating the same."""
    evaluators = []
    for kind in (COCOeval, FasterCOCOeval):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(case.truth))
        truth.createIndex()
        evaluator = kind(truth, truth.loadRes(json.loads(json.dumps(case.detections))), 'bbox')
        evaluator.params.maxDets, evaluator.params.useCats = list(limits), int(use_classes)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        evaluators.append(evaluator)
    return evaluators


def assert_same(plain: COCOeval, faster: COCOeval) -> None:
    """By the engine: recall and scores to the last bit, precision but for pycocotools' denominator above 0."""
    assert len(faster.evalImgs) == 0, 'pycocotools was at work'
    for key in ('recall', 'scores'):
        assert np.array_equal(plain.eval[key], faster.eval[key]), key
    differs = plain.eval['precision'] != faster.eval['precision']
    assert (faster.eval['precision'][differs] == 1).all() and (plain.eval['precision'][differs] == 1 - 2**-52).all()
    np.testing.assert_allclose(faster.stats, plain.stats, rtol=0, atol=1e-14)  # means of up to thousands of precisions


@settings(max_examples=50, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 10**6),
    st.sampled_from([(100, 300, 1000), (1, 10, 100), (2, 5, 100), (3, 100, 7)]),
    st.booleans(),
)
def test_random_sets_give_the_same_arrays(seed: int, limits: tuple[int, ...], use_classes: bool) -> None:
    case = random_case(seed)
    if case.detections:
        assert_same(*both(case, limits, use_classes))


NASTY = {
    'a crowd takes detections in, and is not to be found': make_case(
        [(1, 1, SQUARE), (1, 1, [100, 100, 200, 200], True)],
        [(1, 1, [110 + k, 110, 50, 50], 0.9) for k in range(5)] + [(1, 1, SQUARE, 0.5)],
    ),
    'images without objects, without detections, without both': make_case(
        [(2, 1, SQUARE), (3, 1, SQUARE)], [(1, 1, SQUARE, 0.9), (2, 1, SQUARE, 0.8)], images=[1, 2, 3, 4]
    ),
    'a class without objects, one without detections': make_case(
        [(1, 1, SQUARE), (1, 3, SQUARE)], [(1, 1, SQUARE, 0.5), (1, 2, SQUARE, 0.9)], classes=[1, 2, 3]
    ),
    'no object at all': make_case([], [(1, 1, SQUARE, 0.5)]),
    'nothing but crowds': make_case([(1, 1, SQUARE, True)], [(1, 1, SQUARE, 0.5)]),
    'equal scores within and across images': make_case(
        [(1, 1, SQUARE), (2, 1, SQUARE)],
        [(2, 1, [0, 0, 9, 9], 0.5), (1, 1, SQUARE, 0.5), (1, 1, [0, 0, 9, 9], 0.5), (2, 1, SQUARE, 0.5)],
        images=[2, 1],
    ),
    'equal overlaps': make_case(
        [(1, 1, [0, 0, 40, 40]), (1, 1, [20, 0, 40, 40])], [(1, 1, [10, 0, 40, 40], 0.9), (1, 1, [0, 0, 40, 40], 0.8)]
    ),
    'annotation id 0, which pycocotools takes for no match': make_case(
        [(1, 1, SQUARE), (1, 1, [200, 0, 50, 50])], [(1, 1, SQUARE, 0.9), (1, 1, [200, 0, 50, 50], 0.8)], first_id=0
    ),
    'boxes without area': make_case(
        [(1, 1, SQUARE), (1, 1, [5, 5, 0, 0])], [(1, 1, [5, 5, 0, 0], 0.9), (1, 1, [5, 5, -3, -3], 0.8)]
    ),
}


@pytest.mark.parametrize('name', NASTY)
def test_nasty_sets_give_the_same_arrays(name: str) -> None:
    for use_classes in (True, False):
        assert_same(*both(NASTY[name], use_classes=use_classes))


@pytest.mark.parametrize('evaluator', [0, 1], ids=['pycocotools', 'faster-coco-eval'])
def test_more_than_100_boxes_in_an_image(evaluator: int) -> None:
    """By hand: of 150 equally sure detections, all right, the first 100 count for mAP, all for what has limit 1000."""
    boxes = grid(150)
    case = make_case([(1, 1, box) for box in boxes], [(1, 1, box, 0.5) for box in boxes])
    numbers = dict(zip(NUMBERS, both(case)[evaluator].stats.tolist()))
    assert numbers['AR@100'] == pytest.approx(2 / 3)
    assert numbers['mAP'] == pytest.approx(67 / 101)  # precision is 1 at recall 0, 0.01, ..., 0.66
    for name in ('mAP_50', 'mAP_75', 'mAP_s', 'AR@300', 'AR@1000', 'AR_s@1000'):
        assert numbers[name] == pytest.approx(1), name
    assert numbers['mAP_m'] == numbers['AR_l@1000'] == -1


ODD_IDS = {
    'words': make_case(
        [('b', 1, SQUARE), ('a', 1, SQUARE)], [('a', 1, SQUARE, 0.9), ('b', 1, [0, 0, 9, 9], 0.9)], images=['b', 'a']
    ),
    'beyond what a float holds': make_case(
        [(2**53, 1, SQUARE)], [(2**53 + 1, 1, SQUARE, 0.9)], images=[2**53, 2**53 + 1]
    ),
    'a negative one of an annotation': make_case([(1, 1, SQUARE)], [(1, 1, SQUARE, 0.9)], first_id=-1),
}


@pytest.mark.parametrize('name', ODD_IDS)
def test_ids_that_the_engine_does_not_hold_are_left_to_pycocotools(name: str) -> None:
    for use_classes in (True, False):
        plain, faster = both(ODD_IDS[name], use_classes=use_classes)
        assert len(faster.evalImgs) > 0
        for key in ('precision', 'recall', 'scores'):
            assert np.array_equal(plain.eval[key], faster.eval[key]), key
        assert plain.stats.tolist() == faster.stats.tolist()


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('where', ['score', 'bbox'])
def test_what_is_not_finite_is_left_to_pycocotools(where: str, value: float) -> None:
    """As of a training that has gone wrong: it must not end in the evaluation."""
    case = random_case(3)
    case.detections[1][where] = value if where == 'score' else [value, *case.detections[1]['bbox'][1:]]
    plain, faster = both(case)
    assert len(faster.evalImgs) > 0
    np.testing.assert_array_equal(plain.stats, faster.stats)


def test_an_evaluator_can_be_used_again() -> None:
    """After something that is not finite, and with other settings."""
    case = random_case(3)
    plain, faster = both(case)
    broken = dict(faster.cocoDt.anns[1])
    faster.cocoDt.anns[1]['score'] = float('nan')
    faster.evaluate()
    faster.accumulate()
    faster.cocoDt.anns[1].update(broken)
    for evaluator in (plain, faster):
        evaluator.params.iouThrs = np.array([0.3, 0.6])
        evaluator.evaluate()
        evaluator.accumulate()
    for evaluator in (plain, faster):
        evaluator.summarize()
    assert plain.eval['recall'].shape[0] == 2
    assert_same(plain, faster)

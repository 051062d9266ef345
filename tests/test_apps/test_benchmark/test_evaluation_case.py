"""What the benchmark of COCO's evaluation runs: a set like COCO, and the same numbers from each back end."""

from __future__ import annotations

import numpy as np
import pytest
from coco_cases import with_faster

from mmdet_iouquery.apps.benchmark.evaluation import HEIGHT, WIDTH, evaluation_case, simulate


def test_the_set_is_like_coco() -> None:
    truth, detections = simulate(1500, 3, seed=0)
    assert truth == simulate(1500, 3, seed=0)[0] != simulate(1500, 3, seed=1)[0]
    owners = [annotation['image_id'] for annotation in truth['annotations']]
    assert 6.5 < len(owners) / 1500 < 8 and 0 < 1500 - len(set(owners)) < 40
    side = np.sqrt([annotation['area'] for annotation in truth['annotations']])
    assert 0.35 < (side < 32).mean() < 0.47 and 0.18 < (side > 96).mean() < 0.3
    x, y, w, h = np.array([annotation['bbox'] for annotation in truth['annotations']]).T
    assert min(x.min(), y.min()) >= 0 and (x + w).max() <= WIDTH and (y + h).max() <= HEIGHT
    assert {annotation['category_id'] for annotation in truth['annotations']} == set(range(80))
    assert 0 < sum(annotation['iscrowd'] for annotation in truth['annotations']) < 0.02 * len(owners)
    assert np.bincount([detection['image_id'] for detection in detections]).tolist() == [3] * 1500


def test_numbers_are_plausible_and_repeat() -> None:
    evaluate = evaluation_case(30, 40, seed=0)['pycocotools']
    numbers = evaluate()
    assert len(numbers) == 12 and 0.2 < numbers[0] < 0.8
    assert evaluate() == numbers


@with_faster
def test_each_back_end_gives_the_same_numbers() -> None:
    case = evaluation_case(30, 150, seed=1)
    assert set(case) == {'pycocotools', 'faster-coco-eval'}
    # means of doubles, in another order
    assert case['faster-coco-eval']() == pytest.approx(case['pycocotools'](), rel=0, abs=1e-14)

"""Detections by the same rules as the head's, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_detector
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import within

from iouquery_runtime.postprocess import (
    Detections,
    apply_settings,
    piecewise_linear,
    top_detections,
    without_overlaps,
)
from mmdet_iouquery.core import box_cxcywh_to_xyxy
from mmdet_iouquery.core.calibration import piecewise_linear as piecewise_linear_of_torch
from mmdet_iouquery.core.selection import top_detections as top_detections_of_torch
from mmdet_iouquery.core.selection import without_overlaps as without_overlaps_of_torch
from mmdet_iouquery.models.dense_heads.prediction_settings import PredictionSettings

CALIBRATION = {'scores': [0, 0.2, 0.25, 0.7, 1], 'precision': [0, 0.05, 0.4, 0.45, 0.9]}
TEST_CFGS: dict[str, dict[str, Any]] = {
    'none': {},
    'a threshold': {'score_thr': 0.5},
    'a threshold of zero': {'score_thr': 0.0},
    'thresholds by class': {'score_thr': [0.2, 0.9, 0.0, 0.5, 0.7]},
    'overlaps': {'overlap_thr': 0.3},
    'overlaps of all': {'overlap_thr': 0.0},
    'calibration': {'calibration': CALIBRATION},
    'all three': {'score_thr': 0.3, 'overlap_thr': 0.5, 'calibration': CALIBRATION},
}


@pytest.fixture(scope='module')
def head() -> Any:
    return small_detector().bbox_head.eval()


@pytest.mark.parametrize('name', TEST_CFGS)
def test_detections_are_those_of_the_head(name: str, head: Any) -> None:
    """Of raw outputs, in px of an original image that the network saw stretched."""
    test_cfg, (width, height) = TEST_CFGS[name], (900, 501)
    logits = 2 * torch.randn(1, 40, 5)
    boxes = torch.cat(
        [torch.rand(1, 40, 2), 0.6 * torch.rand(1, 40, 2) - 0.02], -1
    )  # some beyond the edges, or without area
    assert (boxes[..., 2:] < 0).any() and (box_cxcywh_to_xyxy(boxes) > 1).any()
    max_per_img = 60
    head.prediction_settings = PredictionSettings.from_cfg({**test_cfg, 'max_per_img': max_per_img}, 5)
    meta = dict(img_shape=(320, 640), batch_input_shape=(320, 640), scale_factor=(640 / width, 320 / height))
    scores, labels, query = top_detections_of_torch(logits, max_per_img)
    expected = head.prediction_settings.detections(boxes[0][query[0]], scores[0], labels[0], meta, rescale=True)
    detections = top_detections(logits[0].numpy(), boxes[0].numpy(), (width, height), max_per_img)
    detections = apply_settings(detections, *(test_cfg.get(key) for key in ('score_thr', 'overlap_thr', 'calibration')))
    assert 3 < len(detections.scores) <= max_per_img
    np.testing.assert_array_equal(detections.labels, expected.labels)
    np.testing.assert_allclose(detections.scores, expected.scores, **within('unit'))
    np.testing.assert_allclose(detections.boxes, expected.bboxes, **within('px'))
    assert detections.scores.dtype == (np.float64 if 'calibration' in test_cfg else np.float32)
    assert detections.boxes.dtype == np.float32 and detections.labels.dtype == np.int64


def test_a_score_that_equals_the_threshold_is_left_out() -> None:
    """As single precision has it."""
    detections = Detections(np.zeros((3, 4), np.float32), np.float32([0.5, 0.3, 0.2]), np.int64([0, 1, 0]))
    assert apply_settings(detections, 0.3, None, None).scores.tolist() == [0.5]
    assert apply_settings(detections, [0.5, 0.25], None, None).labels.tolist() == [1]
    assert len(apply_settings(detections, 0, None, None).scores) == 3


def test_scores_of_extreme_logits_are_zero_and_one() -> None:
    with np.errstate(all='raise'):
        detections = top_detections(np.float32([[200, -200]]), np.full((1, 4), 0.5, np.float32), (10, 10), 5)
    assert detections.scores.tolist() == [1, 0] and detections.labels.tolist() == [0, 1]
    assert detections.boxes.tolist() == [[2.5, 2.5, 7.5, 7.5]] * 2


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(*[st.integers(0, 12)] * 4), max_size=25).map(lambda rows: np.float32(rows).reshape(-1, 4)),
    st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.9, 1.0]),
)
def test_overlaps_are_those_of_the_core(boxes: np.ndarray, threshold: float) -> None:
    """Also of boxes without area, and of an IoU that equals the threshold."""
    boxes[:, 2:] += boxes[:, :2]
    expected = without_overlaps_of_torch(torch.from_numpy(boxes), threshold)
    np.testing.assert_array_equal(without_overlaps(boxes, threshold), expected.numpy())


def test_calibration_is_that_of_the_core_to_the_bit() -> None:
    x = np.concatenate([np.linspace(0, 1, 1001), CALIBRATION['scores']]).astype(np.float32)
    knots, values = CALIBRATION['scores'], CALIBRATION['precision']
    expected = piecewise_linear_of_torch(torch.from_numpy(x), knots, values)
    np.testing.assert_array_equal(piecewise_linear(x, knots, values), expected.numpy())

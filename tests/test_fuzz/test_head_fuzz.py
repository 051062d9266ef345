"""The head on any number of targets, any sizes and any boxes: the same losses, finite, and lawful detections."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import NARROW, UNION_AND_EDGES, loss_names, sample, small_detector, with_fixed_norms
from hypothesis import given
from hypothesis import strategies as st
from mmdet.structures import SampleList
from torch import Tensor, nn

STRIDES, CLASSES, WIDTH = (8, 16, 32), 5, NARROW['neck__out_channels']
DISTRIBUTIONS = {'_delete_': True, 'type': 'DistributionDecoder', 'num_layers': 2}
HEADS: dict[str, dict[str, Any]] = {
    'RT-DETR': {},
    'dense DAB decoder': {'bbox_head__decoder': {'_delete_': True, 'type': 'DABDecoder', 'num_layers': 2}},
    'distributions': {'bbox_head__decoder': DISTRIBUTIONS, **UNION_AND_EDGES},
    'one layer of few bins, from learned anchors': {
        'bbox_head__decoder': {**DISTRIBUTIONS, 'num_layers': 1, 'num_points': 1, 'reg_max': 4},
        'bbox_head__query_selector': {'_delete_': True, 'type': 'LearnedAnchors', 'num_queries': 30},
        **UNION_AND_EDGES,
    },
    'union with an encoder of objects that predicts its IoU': {
        'bbox_head__query_selector__type': 'ScoreTimesIoUQuerySelector',
        'bbox_head__query_selector__class_agnostic': True,
        'bbox_head__criterion__union_matching': True,
    },
}

sides = st.integers(1, 128)
boxes = st.lists(st.floats(-500, 500, width=32), min_size=4, max_size=4)
any_image = st.tuples(
    sides, sides, st.lists(st.tuples(boxes, st.integers(0, CLASSES - 1)), max_size=8), st.sampled_from([0, 0, 0, 60])
)


@pytest.fixture(scope='module', params=HEADS.values(), ids=HEADS)
def head(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    model = small_detector(**NARROW, **request.param)
    model.init_weights()
    return model.bbox_head


def batch_of(drawn_images: list) -> tuple[list[Tensor], SampleList]:
    """The neck's maps of a padded batch, and its samples."""
    height, width = (32 * math.ceil(max(side) / 32) for side in list(zip(*drawn_images))[:2])
    samples = []
    for h, w, objects, crowd in drawn_images:
        objects = objects + [([1.0, 1.0, 9.0, 9.0], 0)] * crowd
        samples.append(sample([box for box, _ in objects], [label for _, label in objects], (height, width), (h, w)))
    maps = [torch.randn(len(samples), WIDTH, height // stride, width // stride) for stride in STRIDES]
    return maps, samples


@given(st.lists(any_image, min_size=1, max_size=3))
def test_any_batch_has_the_same_finite_losses(head: nn.Module, drawn_images: list) -> None:
    """Boxes upside down, without area, outside of the image, or none at all."""
    with_fixed_norms(head.train()).zero_grad()  # one token of one image has no variance
    losses = head.loss(*batch_of(drawn_images))
    assert set(losses) == loss_names(head)
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@given(st.lists(any_image, min_size=1, max_size=3))
def test_detections_lie_in_their_images(head: nn.Module, drawn_images: list) -> None:
    maps, samples = batch_of(drawn_images)
    with torch.no_grad():
        predictions = head.eval().predict(maps, samples)
    assert len(predictions) == len(samples)
    for detections, data_sample in zip(predictions, samples):
        height, width = data_sample.img_shape
        tokens = sum(m.shape[-2] * m.shape[-1] for m in maps)
        queries = min(30, tokens) if hasattr(head.query_selector, 'cls_head') else 30
        assert len(detections) == min(300, CLASSES * queries)
        assert detections.bboxes.isfinite().all() and detections.bboxes.min() >= 0
        assert (detections.bboxes[:, :2] <= detections.bboxes[:, 2:]).all()
        assert detections.bboxes[:, 0::2].max() <= width and detections.bboxes[:, 1::2].max() <= height
        assert ((detections.scores > 0) & (detections.scores < 1)).all() and (detections.scores.diff() <= 0).all()
        assert detections.labels.min() >= 0 and detections.labels.max() < CLASSES

"""The head on any number of targets, any sizes and any boxes: the same losses, finite, and lawful detections."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import NARROW, sample, small_detector
from hypothesis import given
from hypothesis import strategies as st
from mmdet.structures import SampleList
from torch import Tensor, nn

STRIDES, CLASSES, WIDTH = (8, 16, 32), 5, NARROW['neck__out_channels']
HEADS: dict[str, dict[str, Any]] = {
    'RT-DETR': {},
    'dense DAB decoder': {'bbox_head__decoder': {'_delete_': True, 'type': 'DABDecoder', 'num_layers': 2}},
}

sides = st.integers(1, 128)
boxes = st.lists(st.floats(-500, 500, width=32), min_size=4, max_size=4)
pictures = st.tuples(
    sides, sides, st.lists(st.tuples(boxes, st.integers(0, CLASSES - 1)), max_size=8), st.sampled_from([0, 0, 0, 60])
)


@pytest.fixture(scope='module', params=HEADS.values(), ids=HEADS)
def head(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    model = small_detector(**NARROW, **request.param)
    model.init_weights()
    return model.bbox_head


def batch_of(given_pictures: list) -> tuple[list[Tensor], SampleList]:
    """The neck's maps of a padded batch, and its samples."""
    height, width = (32 * math.ceil(max(side) / 32) for side in list(zip(*given_pictures))[:2])
    samples = []
    for h, w, objects, crowd in given_pictures:
        objects = objects + [([1.0, 1.0, 9.0, 9.0], 0)] * crowd
        samples.append(sample([box for box, _ in objects], [label for _, label in objects], (height, width), (h, w)))
    maps = [torch.randn(len(samples), WIDTH, height // stride, width // stride) for stride in STRIDES]
    return maps, samples


@given(st.lists(pictures, min_size=1, max_size=3))
def test_any_batch_has_the_same_finite_losses(head: nn.Module, given_pictures: list) -> None:
    """Boxes upside down, without area, outside of the image, or none at all."""
    head.train().zero_grad()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):  # one token of one image has no variance
            module.eval()
    losses = head.loss(*batch_of(given_pictures))
    names = {name for name in losses if 'enc_' not in name}
    layers = len(head.decoder.layers)
    assert len(names) == 2 * 3 * layers and {'loss_cls', 'dn_loss_iou', 'd0.loss_bbox'} <= names
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@given(st.lists(pictures, min_size=1, max_size=3))
def test_detections_lie_in_their_pictures(head: nn.Module, given_pictures: list) -> None:
    maps, samples = batch_of(given_pictures)
    with torch.no_grad():
        found = head.eval().predict(maps, samples)
    assert len(found) == len(samples)
    for one, data_sample in zip(found, samples):
        height, width = data_sample.img_shape
        assert len(one) == min(300, CLASSES * min(30, sum(m.shape[-2] * m.shape[-1] for m in maps)))
        assert one.bboxes.isfinite().all() and one.bboxes.min() >= 0
        assert one.bboxes[:, 0::2].max() <= width and one.bboxes[:, 1::2].max() <= height
        assert ((one.scores > 0) & (one.scores < 1)).all() and (one.scores.diff() <= 0).all()
        assert one.labels.min() >= 0 and one.labels.max() < CLASSES

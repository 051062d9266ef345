"""Ground truth as it comes: crowded, degenerate, broken; and what denoising may not touch."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from helpers import UNION_AND_EDGES, random_batch, small_detector, with_fixed_norms
from mmdet.models.task_modules import HungarianAssigner
from mmengine.logging import MMLogger
from tolerances import within
from torch import nn

from mmdet_iouquery.models.losses import PerImageAssigner
from mmdet_iouquery.structures import Predictions, Targets

SIZE = (64, 64)
DECODERS: dict[str, dict[str, Any]] = {
    'deformable': {},
    'dense DAB': {'bbox_head__decoder': {'_delete_': True, 'type': 'DABDecoder', 'num_layers': 2}},
    'deformable DAB': {
        'bbox_head__decoder': {
            '_delete_': True,
            'type': 'DABDecoder',
            'num_layers': 2,
            'cross_attention': 'deformable',
            'num_levels': 3,
        }
    },
    'distributions': {
        'bbox_head__decoder': {'_delete_': True, 'type': 'DistributionDecoder', 'num_layers': 2},
        **UNION_AND_EDGES,
    },
}
every_decoder = pytest.mark.parametrize('changes', DECODERS.values(), ids=DECODERS)


def still(changes: dict[str, Any]) -> nn.Module:
    """A detector in training mode, but for its norms."""
    model = small_detector(**changes)
    model.init_weights()
    return with_fixed_norms(model.train())


@every_decoder
def test_denoising_changes_no_other_loss(changes: dict[str, Any]) -> None:
    """Main, auxiliary and encoder losses and their gradients, with denoising on and off."""
    model = still(changes).double()
    images, samples = random_batch([3, 0, 1], *SIZE)
    results = []
    for denoising in (model.bbox_head.denoising, None):
        model.bbox_head.denoising = denoising
        model.zero_grad()
        losses = model.loss(images.double(), copy.deepcopy(samples))
        losses = {name: loss for name, loss in losses.items() if 'dn_' not in name}
        sum(losses.values()).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((losses, {name: g for name, g in gradients.items() if 'label_embedding' not in name}))
    (losses, gradients), (expected_losses, expected_gradients) = results
    assert losses.keys() == expected_losses.keys() and gradients.keys() == expected_gradients.keys()
    torch.testing.assert_close(losses, expected_losses, **within(torch.float64))
    torch.testing.assert_close(gradients, expected_gradients, **within(torch.float64))


@every_decoder
def test_matching_outputs_have_no_gradient_to_denoising_queries(changes: dict[str, Any]) -> None:
    """Neither to their content nor to their anchors: exactly zero, in every layer."""
    head = still(changes).bbox_head
    _, samples = random_batch([3, 1], *SIZE)
    queries = []

    def watch(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        content, anchors = (tensor.detach().requires_grad_() for tensor in args[0][:2])
        queries.append((content, anchors))
        return (args[0]._replace(content=content, anchors_unact=anchors), *args[1:]), kwargs

    head.decoder.register_forward_pre_hook(watch, with_kwargs=True)
    maps = [torch.rand(2, 256, 8 // 2**i, 8 // 2**i) for i in range(3)]
    decoded = head.run_parts(maps, samples, head.targets(samples))
    logits, boxes, refinement = decoded.matching_predictions
    outputs = [logits, boxes, *(refinement or ())[:3]]
    p = decoded.num_denoising
    for gradient in torch.autograd.grad(sum(output.sum() for output in outputs), queries[0]):
        assert (gradient[:, :p] == 0).all()
        assert (gradient[:, p:] != 0).any()


def test_a_crowded_image_is_bounded_and_said_once() -> None:
    """2,000 boxes: no more denoising queries than for 6, every loss finite, one line in the log."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_instance('crowded')
    logger.addHandler(handler)
    model = still({})
    images, samples = random_batch([2000, 1], *SIZE)
    for _ in range(2):
        targets = model.bbox_head.targets(samples)
        decoded = model.bbox_head.run_parts(model.extract_feat(images), samples, targets)
        assert decoded.num_denoising == 12  # 6 positives, 6 negatives
    losses = model.loss(images, samples)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert len(lines) == 1 and 'an image has 2000 boxes, more than denoising has room for (6)' in lines[0]


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_a_box_that_is_not_finite_is_refused_by_the_images_name(value: float) -> None:
    images, samples = random_batch([2, 1], *SIZE)
    samples[1].gt_instances.bboxes[0, 2] = value
    with pytest.raises(ValueError, match=r'images/one.jpg has the box \[.*(nan|inf).*\], which is not finite'):
        still({}).loss(images, samples)


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('numbers', [slice(None), slice(2, 3)], ids=['all', 'one'])
def test_broken_predictions_do_not_reach_mmdets_solver(numbers: slice, value: float) -> None:
    """The others are matched as if the broken query were not there, should one number of it be broken or all."""
    costs = [
        dict(type='FocalLossCost', weight=2.0),
        dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='IoUCost', iou_mode='giou', weight=2.0),
    ]
    assigner = PerImageAssigner(HungarianAssigner(match_costs=costs))
    logits, boxes = (
        torch.zeros(1, 1, 3, 4),
        torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]]),
    )
    truth = Targets(torch.tensor([1, 2]), boxes[[2, 1]].clone(), (2,))
    logits[0, 0, 0, numbers], boxes[0, numbers] = value, value
    pairs = assigner(Predictions(logits, boxes[None, None]), truth)
    assert sorted(zip(pairs.query.tolist(), pairs.truth.tolist())) == [(1, 1), (2, 0)]

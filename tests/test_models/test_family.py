"""Every detector of the family: what holds whatever the batch, the boxes and the size of the images."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from helpers import (
    DISTILLED,
    FAMILY,
    NARROW,
    NARROW_VIT,
    TINY_TEACHER,
    loss_names,
    random_batch,
    small_detector,
    with_fixed_norms,
)
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.models.data_preprocessors import DistillingDataPreprocessor

SIZE = (64, 64)
"""In px: D-FINE-N has 20 tokens here, fewer than queries."""

NARROW_B0 = {
    **{key: value for key, value in NARROW.items() if key != 'backbone__base_channels'},
    'backbone__arch': 'B0',
    'neck__in_channels': [256, 512, 1024],
}
"""Three maps of the narrowest HGNetv2, in place of that of the size."""
DETECTORS = {
    **FAMILY,
    'RT-DETRv2-M': {
        **NARROW,
        'config': 'rtdetrv2/rtdetrv2_r50vd_m_8xb2-84e_coco.py',
        'neck__in_channels': [64, 128, 256],
        'test_cfg__num_decoder_layers': 2,
    },
    'D-FINE-L': {'config': 'dfine/dfine_hgnetv2-l_8xb4-80e_coco.py', **NARROW_B0},
    'DEIM-D-FINE-X': {
        'config': 'deim/deim-dfine_hgnetv2-x_8xb4-58e_coco.py',
        **NARROW_B0,
        'neck__out_channels': 48,
        'bbox_head__in_channels': [48] * 3,
    },
    'DEIM-D-FINE-S': {'config': 'deim/deim-dfine_hgnetv2-s_8xb4-132e_coco.py', **NARROW_B0},
    'RT-DETRv4-S': {
        'config': 'rtdetrv4/rtdetrv4_hgnetv2-s_8xb4-132e_coco.py',
        **NARROW_B0,
        **DISTILLED,
        'data_preprocessor__teacher': {'_delete_': True, **TINY_TEACHER},
    },
    'DEIMv2-S': {
        'config': 'deimv2/deimv2_vit-s_8xb4-132e_coco.py',
        **NARROW_VIT,
        'backbone__out_indices': (0, 1, 2),
        'backbone__prior_channels': 4,
    },
    'ECDet-X': {
        'config': 'ecdet/ecdet_ecvit-x_8xb4-50e_coco.py',
        **NARROW_VIT,
        'backbone__out_indices': (1, 2),
        'backbone__out_channels': 48,
        'neck__in_channels': [48] * 3,
    },
}
"""Also what other sizes have: three maps with edges, no affine units, a frozen stem, six layers, projections, a
teacher."""


@pytest.fixture(scope='module', params=DETECTORS)
def detector(request: pytest.FixtureRequest) -> nn.Module:
    """As at the start of a training; batch norms do not depend on the batch."""
    torch.manual_seed(0)
    model = small_detector(**DETECTORS[request.param])
    model.init_weights()
    return model


@pytest.fixture
def training(detector: nn.Module) -> Iterator[nn.Module]:
    """Batch norms do not depend on the batch."""
    detector.zero_grad()
    yield with_fixed_norms(detector.train())
    detector.eval()


@pytest.fixture
def moved(detector: nn.Module) -> nn.Module:
    """A copy for prediction whose boxes are far from its anchors; of distributions, left and right have passed."""
    model = copy.deepcopy(detector).eval()
    decoder = model.bbox_head.decoder
    with torch.no_grad():
        for parameter in model.bbox_head.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
        if decoder.refines_distributions:
            decoder.bbox_heads[0].layers[-1].bias.unflatten(0, (4, -1))[::2, 0] = 50.0
    return model


def losses_of(model: nn.Module, images: Tensor, samples: list) -> dict[str, Tensor]:
    """Under the names that a detector's losses have; a student's map is compared with its teacher's too."""
    losses = model(images, samples, mode='loss')
    is_student = isinstance(model.data_preprocessor, DistillingDataPreprocessor)
    assert set(losses) == loss_names(model.bbox_head) | ({'loss_distill'} if is_student else set())
    return losses


def train(model: nn.Module, images: Tensor, samples: list) -> dict[str, Tensor]:
    """The losses; every one is finite and they train every parameter."""
    losses = losses_of(model, images, samples)
    assert [name for name, loss in losses.items() if not loss.isfinite()] == []
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []
    return losses


@pytest.mark.parametrize('counts', [[0, 0], [0, 3], [1, 1], [1], [7, 2]], ids=str)
def test_every_batch_has_the_same_losses_and_trains_every_parameter(training: nn.Module, counts: list[int]) -> None:
    train(training, *random_batch(counts, *SIZE))


def test_a_batch_without_boxes_has_no_box_losses(training: nn.Module) -> None:
    """Scores learn that there is nothing; layers learn from the last one's distributions with or without boxes, and so
    does a student from its teacher."""
    losses = train(training, *random_batch([0, 0], *SIZE))
    assert all(loss > 0 for name, loss in losses.items() if name.endswith(('loss_cls', 'loss_distill')))
    of_boxes = [loss for name, loss in losses.items() if not name.endswith(('loss_cls', 'loss_ddf', 'loss_distill'))]
    assert all(loss == 0 for loss in of_boxes)


def test_a_crowd_is_trained_past(training: nn.Module) -> None:
    """2,000 boxes: more than queries, and no more denoising queries than for 6."""
    images, samples = random_batch([2000, 1], *SIZE)
    decoded = training.bbox_head.run_parts(training.extract_feat(images), samples, training.bbox_head.targets(samples))
    assert decoded.num_denoising == 12  # 6 positives, 6 negatives
    train(training, images, samples)


DEGENERATE = [
    [5, 5, 5, 5],
    [5, 5, 5, 50],
    [40, 40, 20, 10],
    [-90, -90, -70, -80],
    [200, 10, 240, 30],
    [1, 1, 1.001, 60],
]


def test_degenerate_boxes_train_past(training: nn.Module) -> None:
    """Should one come through the pipeline, losses and gradients are finite all the same."""
    for box in DEGENERATE:
        images, samples = random_batch([2, 1], *SIZE)
        samples[0].gt_instances.bboxes[0] = torch.tensor(box)
        training.zero_grad()
        train(training, images, samples)


@pytest.mark.parametrize('shape', [(64, 64), (320, 256), (330, 250), (33, 257)], ids=str)
def test_any_input_size(training: nn.Module, moved: nn.Module, shape: tuple[int, int]) -> None:
    """Fewer tokens than queries, rectangles, sides that no stride divides."""
    train(training, *random_batch([2], *shape))
    with torch.no_grad():
        logits, boxes = moved(torch.rand(1, 3, *shape), mode='tensor')
        (predicted,) = moved.predict(*random_batch([0], *shape))
    assert logits.isfinite().all() and boxes.isfinite().all() and logits.shape[1] in (20, 30)
    assert not moved.bbox_head.decoder.refines_distributions or (boxes[..., 2] == 0).all()
    corners = predicted.pred_instances.bboxes
    assert corners.min() >= 0 and (corners[:, :2] <= corners[:, 2:]).all(), 'inside out'
    assert corners[:, 2].max() <= shape[1] and corners[:, 3].max() <= shape[0]


def test_padding_holds_no_query_and_is_not_read(training: nn.Module) -> None:
    """A 96 x 64 and a 128 x 128 image in one batch: queries start inside; what maps hold beyond changes nothing."""
    images, samples = random_batch([2, 2], 128, 128)
    samples[0].set_metainfo({'img_shape': (96, 64)})
    train(training, images, samples)
    head = training.eval().bbox_head
    with torch.no_grad():
        maps = training.extract_feat(images)
        decoded = head.run_parts(maps, samples)
        other = [x.clone() for x in maps]
        for x in other:
            height, width = x.shape[-2:]
            x[0, :, height * 3 // 4 :] = x[0, :, :, width // 2 :] = 7.0
        again = head.run_parts(other, samples)
    index = decoded.selection.token_index
    centres = [[(torch.arange(n) + 0.5) / n for n in shape] for shape in decoded.memory.spatial_shapes]
    rows = torch.cat([y.repeat_interleave(len(x)) for y, x in centres])
    columns = torch.cat([x.repeat(len(y)) for y, x in centres])
    assert (rows[index[0]] < 0.75).all() and (columns[index[0]] < 0.5).all()
    assert torch.equal(index, again.selection.token_index)
    for prediction, expected in zip(again.predictions[:2], decoded.predictions[:2]):
        torch.testing.assert_close(prediction, expected, **within(torch.float32))


def test_an_image_is_predicted_the_same_alone_and_among_others(moved: nn.Module) -> None:
    """In double precision, so that no choice among nearly equal scores can differ."""
    model = moved.double()
    images = torch.rand(3, 3, 96, 128).double()
    with torch.no_grad():
        batched = model(images, mode='tensor')
        alone = [model(image[None], mode='tensor') for image in images]
    for actual, expected in zip(batched, zip(*alone)):
        torch.testing.assert_close(actual, torch.cat(expected), **within(torch.float64))


def test_numbers_that_are_not_finite_are_told_by_the_losses(training: nn.Module) -> None:
    """Nothing is raised on the way to the hook that reports them, and nothing hides them."""
    model = copy.deepcopy(training)
    with torch.no_grad():
        model.bbox_head.decoder.layers[1].norm3.weight[0] = torch.nan
    losses = losses_of(model, *random_batch([2, 1], *SIZE))
    assert not losses['loss_cls'].isfinite() and losses['d0.loss_cls'].isfinite()
    with torch.no_grad():
        model.eval().predict(*random_batch([0], *SIZE))

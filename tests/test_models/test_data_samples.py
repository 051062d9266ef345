"""From data samples to tensors and back: which frame boxes refer to, and what of a batch is padding, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import sample
from mmdet.structures import DetDataSample

from mmdet_iouquery.models.data_samples import boxes_in_px, extent_of, keep_selected, padding_of, targets_of
from mmdet_iouquery.structures import EncoderTarget, Predictions, Queries, Selection

INPUT = (64, 96)
"""Height and width of the padded batch; mmdet may add the channels to an image's."""
SMALL = (40, 24)
"""Those of an image in it, in the upper left corner."""
SHAPES = ((4, 6), (2, 3), (1, 2))
"""Levels at strides 16 and 32, and one whose tokens are 48 wide and 64 high."""


def batch() -> list[DetDataSample]:
    """An image that fills the input, one without boxes, and a small one that the second of its boxes leaves."""
    return [
        sample([[24, 16, 72, 48], [0, 0, 96, 64]], [2, 0], INPUT),
        sample([], [], INPUT),
        sample([[6, 10, 18, 30], [12, 20, 36, 40], [0, 0, 24, 40]], [1, 4, 3], INPUT, (*SMALL, 3)),
    ]


def test_boxes_are_shares_of_the_padded_input() -> None:
    """Whatever the image covers of it, x by the width and y by the height; a box is not cut at its image."""
    targets = targets_of(batch(), 5)
    assert targets.labels.tolist() == [2, 0, 1, 4, 3] and targets.counts == (2, 0, 3)
    assert targets.image.tolist() == [0, 0, 2, 2, 2]
    expected = [
        [0.5, 0.5, 0.5, 0.5],
        [0.5, 0.5, 1.0, 1.0],
        [12 / 96, 20 / 64, 12 / 96, 20 / 64],
        [24 / 96, 30 / 64, 24 / 96, 20 / 64],
        [12 / 96, 20 / 64, 24 / 96, 40 / 64],
    ]
    torch.testing.assert_close(targets.boxes, torch.tensor(expected))


def test_boxes_are_shares_of_their_own_image_when_asked() -> None:
    targets = targets_of(batch(), 5, by_image=True)
    whole, half = [0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]
    expected = [half, whole, half, [1.0, 0.75, 1.0, 0.5], whole]
    torch.testing.assert_close(targets.boxes, torch.tensor(expected))
    assert targets.labels.tolist() == [2, 0, 1, 4, 3] and targets.counts == (2, 0, 3)


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_boxes_are_in_single_precision_whatever_the_annotations_are(dtype: torch.dtype) -> None:
    data_sample = sample([[24, 16, 72, 48]], [2], INPUT)
    data_sample.gt_instances.bboxes = data_sample.gt_instances.bboxes.to(dtype)
    assert targets_of([data_sample], 5).boxes.dtype == torch.float32


def test_a_batch_without_boxes_keeps_its_images() -> None:
    targets = targets_of([sample([], [], INPUT), sample([], [], INPUT, SMALL)], 5)
    assert targets.counts == (0, 0) and targets.boxes.shape == (0, 4) and targets.labels.dtype == torch.int64
    assert targets.image.tolist() == []


@pytest.mark.parametrize(
    ('labels', 'wrong'), [([0, 4], None), ([0, 5], 5), ([-1, 4], -1), ([-2, 7], 7)], ids=['fits', 'high', 'low', 'both']
)
def test_labels_are_those_of_the_models_classes(labels: list[int], wrong: int | None) -> None:
    data_sample = sample([[1, 1, 9, 9]] * 2, labels, INPUT)
    if wrong is None:
        assert targets_of([data_sample], 5).labels.tolist() == labels
        return
    message = rf'images/one.jpg has the label {wrong}, but the model has num_classes=5, labels 0\.\.4; make'
    with pytest.raises(ValueError, match=message):
        targets_of([data_sample], 5)


def test_the_box_that_is_not_finite_is_named() -> None:
    data_sample = sample([[1, 1, 9, 9], [2, 3, float('nan'), 9]], [0, 0], INPUT)
    del data_sample.img_path
    with pytest.raises(ValueError, match=r'an image has the box \[2\.0, 3\.0, nan, 9\.0\], which is not finite'):
        targets_of([data_sample], 5)


def rows(text: str) -> list[bool]:
    """1 for padding, row by row."""
    return [character == '1' for character in text if character in '01']


def test_padding_is_what_has_its_centre_beyond_the_image() -> None:
    """Centres of stride 16 at 8, 24, 40, ...: one on the edge itself, at x = 24 or y = 40, is outside."""
    padding = padding_of(batch(), SHAPES, 'cpu')
    assert padding.shape == (3, 24 + 6 + 2) and not padding[:2].any()
    finest = rows('011111 011111 111111 111111')
    # the coarsest level's centres lie at (24, 32) and (72, 32)
    assert padding[2].tolist() == [*finest, *rows('011 111'), *rows('11')]


def test_rows_and_columns_of_padding_are_told_apart() -> None:
    """An image as wide as the input and half as high, and one half as wide and as high."""
    padding = padding_of([sample([], [], INPUT, (32, 96)), sample([], [], INPUT, (64, 48))], SHAPES[:2], 'cpu')
    assert padding[0].tolist() == rows('000000 000000 111111 111111 000 111')
    # a stride of 32 has the centre of its second column on the edge
    assert padding[1].tolist() == rows('000111 000111 000111 000111 011 011')


def test_there_is_no_padding_when_every_image_fills_the_input() -> None:
    full = [sample([], [], INPUT), sample([], [], INPUT, (*INPUT, 3))]
    assert padding_of(full, SHAPES, 'cpu') is None and extent_of(full, 'cpu') is None


def test_extent_is_the_share_of_width_and_height() -> None:
    extent = extent_of(batch(), 'cpu')
    torch.testing.assert_close(extent, torch.tensor([[1.0, 1.0], [1.0, 1.0], [24 / 96, 40 / 64]]))
    # a box of the image, times its extent, is the same box of the input
    of_input, of_image = targets_of(batch(), 5), targets_of(batch(), 5, by_image=True)
    torch.testing.assert_close(of_image.boxes * extent.repeat(1, 2)[of_image.image], of_input.boxes)


META = {'batch_input_shape': INPUT, 'img_shape': (*SMALL, 3), 'scale_factor': (0.5, 0.25)}


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ({}, [48.0, 64.0, 144.0, 192.0]),  # of the input 24, 16, 72, 48; the image as it came is 2 and 4 times as large
        ({'rescale': False}, [24.0, 16.0, 72.0, 48.0]),
        ({'by_image': True}, [12.0, 40.0, 36.0, 120.0]),
        ({'by_image': True, 'rescale': False}, [6.0, 10.0, 18.0, 30.0]),
    ],
    ids=str,
)
def test_boxes_to_pixels_by_hand(settings: dict[str, Any], expected: list[float]) -> None:
    assert boxes_in_px(torch.tensor([0.5, 0.5, 0.5, 0.5]), META, **settings).tolist() == pytest.approx(expected)


def test_boxes_in_pixels_are_not_cut() -> None:
    boxes = boxes_in_px(torch.tensor([[1.0, 0.0, 0.5, 0.5]]), META, rescale=False)
    assert boxes.tolist() == [[72.0, -16.0, 120.0, 16.0]]


@pytest.mark.parametrize('by_image', [False, True])
def test_there_and_back(by_image: bool) -> None:
    samples = batch()
    targets = targets_of(samples, 5, by_image=by_image)
    for data_sample, boxes in zip(samples, targets.boxes.split(targets.counts)):
        actual = boxes_in_px(boxes, data_sample.metainfo, by_image=by_image, rescale=False)
        torch.testing.assert_close(actual, data_sample.gt_instances.bboxes)


def selection(**more: Any) -> Selection:
    """Two images, two queries each, three classes."""
    logits = torch.tensor([[[0.0, 1.0, -1.0], [2.0, -3.0, 3.0]], [[-1.0, -2.0, -4.0], [5.0, 4.0, 0.0]]])
    boxes = torch.tensor([0.5, 0.5, 0.5, 0.5]).repeat(2, 2, 1)
    boxes[1, 1] = torch.tensor([0.25, 0.5, 0.5, 1.0])
    queries = Queries(torch.zeros(2, 2, 8), torch.zeros(2, 2, 4))
    return Selection(queries, Predictions(logits[None], boxes[None]), encoder_target=EncoderTarget(**more))


def selected(settings: dict[str, Any], **more: Any) -> list[DetDataSample]:
    samples = [sample([], [], INPUT), sample([], [], INPUT, SMALL)]
    for data_sample in samples:
        data_sample.set_metainfo({'scale_factor': (0.5, 0.25)})
    keep_selected(selection(**more), samples, **settings)
    return samples


def test_the_encoders_best_class_of_each_selected_query_is_kept() -> None:
    """With the probability of the class, each by itself."""
    for data_sample, labels, best in zip(selected({}), ([1, 2], [0, 0]), ([1.0, 3.0], [-1.0, 5.0])):
        assert data_sample.selected_queries.labels.tolist() == labels
        torch.testing.assert_close(data_sample.selected_queries.scores, torch.tensor(best).sigmoid())


def test_an_encoder_of_objects_alone_keeps_no_labels() -> None:
    for data_sample, first in zip(selected({}, class_agnostic=True), ([0.0, 2.0], [-1.0, 5.0])):
        assert 'labels' not in data_sample.selected_queries
        torch.testing.assert_close(data_sample.selected_queries.scores, torch.tensor(first).sigmoid())


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ({}, [0.0, 0.0, 96.0, 256.0]),
        ({'rescale': False}, [0.0, 0.0, 48.0, 64.0]),
        ({'by_image': True}, [0.0, 0.0, 24.0, 160.0]),
        ({'by_image': True, 'rescale': False}, [0.0, 0.0, 12.0, 40.0]),
    ],
    ids=str,
)
def test_selected_boxes_are_kept_in_pixels(settings: dict[str, Any], expected: list[float]) -> None:
    """The left half of the input, or of the image."""
    assert selected(settings)[1].selected_queries.bboxes[1].tolist() == pytest.approx(expected)


def test_what_is_kept_is_in_single_precision() -> None:
    chosen, samples = selection(), [sample([], [], INPUT), sample([], [], INPUT)]
    keep_selected(chosen._replace(encoder=chosen.encoder.apply(lambda x: x.bfloat16())), samples)
    kept = samples[0].selected_queries
    assert kept.scores.dtype == kept.bboxes.dtype == torch.float32


def test_samples_stay_as_they_are_where_the_encoder_predicts_nothing() -> None:
    samples = batch()
    keep_selected(selection()._replace(encoder=None), samples)
    assert not any('selected_queries' in sample for sample in samples)

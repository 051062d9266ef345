"""Multi-scale training."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from helpers import sample
from mmdet.registry import MODELS
from mmengine.logging import MessageHub

SIZES = [480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800]


def at_iteration(iteration: int) -> None:
    MessageHub.get_instance('multi_scale')
    MessageHub.get_current_instance().update_info('iter', iteration)


def test_boxes_keep_their_place() -> None:
    augment = MODELS.build({'type': 'BatchMultiScale', 'sizes': [96]})
    at_iteration(0)
    data = sample([[8, 16, 32, 64]], [1], (64, 128), img_shape=(64, 120))
    images, (data,) = augment(torch.rand(1, 3, 64, 128), [data])
    assert images.shape == (1, 3, 96, 96)
    assert data.gt_instances.bboxes.tolist() == [[6, 24, 24, 96]]
    assert data.img_shape == (96, 90) and data.batch_input_shape == (96, 96)


def test_draws_as_often_as_listed_and_the_same_for_everyone() -> None:
    ours, theirs = (MODELS.build({'type': 'BatchMultiScale', 'sizes': SIZES}) for _ in range(2))
    drawn = [ours.size_at(i) for i in range(13000)]
    assert drawn == [theirs.size_at(i) for i in range(13000)]
    counts = Counter(drawn)
    assert set(counts) == set(SIZES)
    assert counts[640] == pytest.approx(3000, abs=200)  # four standard deviations
    # five standard deviations
    assert all(count == pytest.approx(1000, abs=150) for size, count in counts.items() if size != 640)


def test_native_size_passes_untouched() -> None:
    augment, images = MODELS.build({'type': 'BatchMultiScale', 'sizes': [64]}), torch.rand(1, 3, 64, 64)
    at_iteration(5)
    assert augment(images, [])[0] is images


def test_from_its_last_epoch_on_batches_keep_their_size() -> None:
    augment, images = (
        MODELS.build({'type': 'BatchMultiScale', 'sizes': [96], 'stop_epoch': 3}),
        torch.rand(1, 3, 64, 64),
    )
    at_iteration(0)
    for epoch, side in ((0, 96), (2, 96), (3, 64), (4, 64)):
        MessageHub.get_current_instance().update_info('epoch', epoch)
        assert augment(images, [])[0].shape[-2:] == (side, side)
    MessageHub.get_current_instance().update_info('epoch', 0)


def test_a_stop_that_is_no_epoch_is_named() -> None:
    with pytest.raises(ValueError, match='stop_epoch must be at least 1 and a whole number, got 0'):
        MODELS.build({'type': 'BatchMultiScale', 'sizes': [64], 'stop_epoch': 0})


@pytest.mark.parametrize('sizes', [[], [0]])
def test_wrong_sizes(sizes: list) -> None:
    with pytest.raises(ValueError, match='positive numbers of pixels'):
        MODELS.build({'type': 'BatchMultiScale', 'sizes': sizes})

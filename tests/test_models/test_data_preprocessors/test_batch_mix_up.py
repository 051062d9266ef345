"""Mixup of neighbours: pixels, boxes, what is drawn and when."""

from __future__ import annotations

import pytest
import torch
from helpers import sample
from mmdet.registry import MODELS
from mmengine.logging import MessageHub

from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.data_preprocessors.batch_blend import STAGE


def at_iteration(iteration: int, stage: str | None = None) -> None:
    MessageHub.get_instance('blends')
    MessageHub.get_current_instance().update_info('iter', iteration)
    MessageHub.get_current_instance().update_info(STAGE, stage)


def three() -> tuple[torch.Tensor, list]:
    images = torch.rand(3, 3, 8, 8)
    samples = [
        sample([[0, 0, 4, 4]], [1], (8, 8), img_shape=(8, 6)),
        sample([], [], (8, 8), img_shape=(7, 8)),
        sample([[1, 1, 2, 2], [3, 3, 8, 8]], [2, 0], (8, 8), img_shape=(5, 5)),
    ]
    return images, samples


def test_each_image_is_mixed_with_the_one_before_it() -> None:
    """b * x + (1 - b) * x.roll(1); the boxes of both, its own first; valid is what either covers."""
    augment = MODELS.build({'type': 'BatchMixUp', 'prob': 1.0, 'ratio_range': (0.2, 0.2)})
    at_iteration(0)
    images, samples = three()
    mixed, joined = augment(images, samples)
    torch.testing.assert_close(mixed, 0.2 * images + 0.8 * images.roll(1, 0))
    assert [data_sample.gt_instances.labels.tolist() for data_sample in joined] == [[1, 2, 0], [1], [2, 0]]
    assert joined[0].gt_instances.bboxes.tolist() == [[0, 0, 4, 4], [1, 1, 2, 2], [3, 3, 8, 8]]
    assert [data_sample.img_shape for data_sample in joined] == [(8, 6), (8, 8), (7, 8)]
    assert [len(sample.gt_instances) for sample in samples] == [1, 0, 2], 'what came in stays as it was'
    assert all(data_sample.batch_input_shape == (8, 8) for data_sample in joined)


def test_what_is_drawn() -> None:
    """Half of the batches, b evenly from 0.45 to 0.55; by seed and iteration alone, and not as sizes are."""
    augment, twin, other = (MODELS.build({'type': 'BatchMixUp', 'seed': seed}) for seed in (1, 1, 2))
    ratios = [augment.ratio_at(i) for i in range(8000)]
    assert ratios == [twin.ratio_at(i) for i in range(8000)]
    assert ratios != [other.ratio_at(i) for i in range(8000)]
    drawn = torch.tensor([ratio for ratio in ratios if ratio is not None])
    assert len(drawn) == pytest.approx(4000, abs=180)  # four standard deviations, as those below
    assert drawn.min() >= 0.45 and drawn.max() <= 0.55
    assert drawn.mean().item() == pytest.approx(0.5, abs=2e-3)  # four standard deviations
    assert drawn.std().item() == pytest.approx(0.1 / 12**0.5, rel=0.05)  # seven standard deviations
    sizes = MODELS.build({'type': 'BatchMultiScale', 'sizes': [1, 2], 'seed': 1})
    mixed_and_large = sum(ratio is not None and sizes.size_at(i) == 2 for i, ratio in enumerate(ratios))
    assert mixed_and_large == pytest.approx(2000, abs=160)  # four standard deviations


def test_batches_that_stay_as_they_are() -> None:
    images, samples = three()
    augment = MODELS.build({'type': 'BatchMixUp', 'prob': 1.0})
    at_iteration(3)
    single = images[:1], samples[:1]
    assert augment(*single)[0] is single[0], 'one image has no neighbour'
    never = MODELS.build({'type': 'BatchMixUp', 'prob': 0.0})
    assert never(images, samples) == (images, samples)


def test_only_in_its_stages() -> None:
    images, samples = three()
    augment = MODELS.build({'type': 'BatchMixUp', 'prob': 1.0, 'stages': ['mosaic', 'other']})
    for stage, mixes in (('plain', False), ('mosaic', True), (None, False), ('other', True)):
        at_iteration(0, stage)
        assert (augment(images, samples)[0] is not images) == mixes, stage


def test_before_multi_scale_in_the_preprocessor() -> None:
    """As a config has them: bytes in, mixed in 0-1, then resized with all boxes."""
    preprocessor = MODELS.build(
        {
            'type': 'DetDataPreprocessor',
            'mean': [0, 0, 0],
            'std': [255, 255, 255],
            'batch_augments': [
                {'type': 'BatchMixUp', 'prob': 1.0, 'ratio_range': (0.5, 0.5)},
                {'type': 'BatchMultiScale', 'sizes': [16]},
            ],
        }
    )
    at_iteration(0)
    _, samples = three()
    images = [torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (0, 102, 255)]
    batch = preprocessor({'inputs': images, 'data_samples': samples}, training=True)
    means = batch['inputs'].mean((1, 2, 3))
    torch.testing.assert_close(means, torch.tensor([0.5, 0.2, 0.7]))
    assert batch['inputs'].shape == (3, 3, 16, 16)
    assert batch['data_samples'][1].gt_instances.bboxes.tolist() == [[0, 0, 8, 8]]
    assert preprocessor({'inputs': images, 'data_samples': three()[1]}, training=False)['inputs'].shape[-1] == 8


def test_masks_are_refused() -> None:
    images, samples = three()
    for data_sample in samples:
        data_sample.gt_instances.masks = torch.zeros(len(data_sample.gt_instances), 8, 8)
    at_iteration(0)
    with pytest.raises(InputError, match='BatchMixUp mixes images with boxes only, but they come with masks'):
        MODELS.build({'type': 'BatchMixUp', 'prob': 1.0})(images, samples)


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({'prob': 1.5}, r'prob must lie in \[0, 1\]'),
        ({'ratio_range': (0.6, 0.4)}, 'ratio_range must have its lower number first'),
        ({'ratio_range': (0.5, 1.5)}, r'ratio_range\[1\] must lie in \[0, 1\]'),
        ({'stages': 'mosaic'}, 'stages must be a list of names'),
    ],
)
def test_arguments_out_of_range(settings: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        MODELS.build({'type': 'BatchMixUp', **settings})

"""Copy-blend: what is pasted is where its box says, and nothing else changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from helpers import sample
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData
from test_batch_mix_up import at_iteration
from tolerances import about
from torch import Tensor

from mmdet_iouquery import config_path
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.data_preprocessors import BatchCopyBlend, batch_copy_blend

EXTENTS = ((60, 80), (64, 50), (40, 64))
"""Height and width of the images in inputs of 64 x 80."""
SOURCES = {
    1: (0, [4.25, 3.5, 20.75, 30.5]),
    2: (0, [70.5, 40.5, 95.0, 70.0]),  # reaches out of its image
    3: (2, [30.0, 10.0, 50.0, 22.0]),
}
"""Image and box of each label that can be pasted; image 1 has none."""
USELESS = {
    0: [10.0, 10.0, 19.0, 21.0],  # 99 px
    4: [40.0, 20.0, 20.0, 10.0],  # inside out
    5: [-40.0, -40.0, -5.0, -5.0],
    6: [float('nan'), 0.0, 30.0, 30.0],
}


def batch() -> tuple[Tensor, list]:
    """Random images, whose padding is NaN."""
    inputs = torch.full((3, 3, 64, 80), float('nan'))
    boxes: list[list] = [[], [], []]
    for label, (image, box) in [*SOURCES.items(), *((label, (0, box)) for label, box in USELESS.items())]:
        boxes[image].append((label, box))
    samples = []
    for image, (height, width) in enumerate(EXTENTS):
        inputs[image, :, :height, :width] = torch.rand(3, height, width)
        labels, corners = [label for label, _ in boxes[image]], [box for _, box in boxes[image]]
        samples.append(sample(corners, labels, (64, 80), img_shape=(height, width)))
    return inputs, samples


def augment(**settings: Any) -> BatchCopyBlend:
    return MODELS.build({'type': 'BatchCopyBlend', 'prob': 1.0, **settings})


def pasted(before: list, after: list) -> list[list[tuple[int, list[float]]]]:
    """Label and box of what each image got."""
    return [
        [*zip(new.gt_instances.labels.tolist()[count:], new.gt_instances.bboxes.tolist()[count:])]
        for new, count in zip(after, (len(old.gt_instances) for old in before))
    ]


def inside(label: int) -> list[float]:
    """What of the box of an object lies in its image."""
    image, (x1, y1, x2, y2) = SOURCES[label]
    height, width = EXTENTS[image]
    return [x1, y1, min(x2, width), min(y2, height)]


def test_an_object_is_where_its_box_says() -> None:
    """b times what is there and 1 - b times the object, which went whole px: pixel by pixel, over many draws."""
    seen = Counter()
    for iteration in range(60):
        at_iteration(iteration)
        inputs, samples = batch()
        images, after = augment(num_objects=1, surroundings=(0, 0), ratio_range=(0.25, 0.25))(inputs, samples)
        expected = inputs.clone()
        for i, ((label, box),) in enumerate(pasted(samples, after)):
            source, (x1, y1, x2, y2) = SOURCES[label][0], inside(label)
            right, down = round(box[0] - x1), round(box[1] - y1)
            assert box == about([x1 + right, y1 + down, x2 + right, y2 + down], 'px')
            left, top, end, bottom = int(x1), int(y1), int(-(-x2 // 1)), int(-(-y2 // 1))
            there = expected[i, :, top + down : bottom + down, left + right : end + right]
            there.copy_(0.25 * there + 0.75 * inputs[source, :, top:bottom, left:end])
            height, width = EXTENTS[i]
            assert box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
            seen[i, label] += 1
        torch.testing.assert_close(images, expected, equal_nan=True)
    assert set(seen) == {(i, label) for i in range(3) for label in SOURCES}, 'every object gets into every image'


def test_each_image_gets_different_objects_of_the_batch_behind_its_own() -> None:
    for iteration in range(20):
        at_iteration(iteration)
        inputs, samples = batch()
        kept = [sample.gt_instances.bboxes.clone() for sample in samples]
        images, after = augment()(inputs, samples)
        assert [sorted(label for label, _ in of_image) for of_image in pasted(samples, after)] == [[1, 2, 3]] * 3
        for old, new, boxes in zip(samples, after, kept):
            assert torch.equal(old.gt_instances.bboxes.nan_to_num(), boxes.nan_to_num()), 'what came in stays'
            assert torch.equal(new.gt_instances.bboxes[: len(boxes)].nan_to_num(), boxes.nan_to_num())
            assert new.metainfo == old.metainfo
        assert torch.equal(images.isnan(), inputs.isnan()), 'nothing comes from the padding or gets there'
    at_iteration(0)
    counts = [len(of_image) for of_image in pasted(samples, augment(num_objects=2)(inputs, samples)[1])]
    assert counts == [2, 2, 2]


def test_surroundings_come_along_as_far_as_both_images_go() -> None:
    """A fifth of 16 and 10 px, so 3 and 2 at each side, less where the object lies, or comes to lie, by an edge."""
    edges = Counter()
    for iteration in range(200):
        at_iteration(iteration)
        inputs = torch.zeros(2, 1, 24, 32)
        inputs[0] = 1
        samples = [sample([[1, 9, 17, 19]], [0], (24, 32)), sample([], [], (24, 32))]
        images, after = augment(num_objects=1, surroundings=(0.2, 0.2), ratio_range=(0.5, 0.5))(inputs, samples)
        x1, y1, x2, y2 = (int(edge) for edge in after[1].gt_instances.bboxes[0])
        rows, columns = (images[1, 0] == 0.5).nonzero().unbind(1)
        left, right = min(3, 1, x1), min(3, 32 - 17, 32 - x2)
        top, bottom = min(2, 9, y1), min(2, 24 - 19, 24 - y2)
        actual = [int(end) for end in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
        assert actual == [x1 - left, y1 - top, x2 + right, y2 + bottom]
        assert len(rows) == (left + 16 + right) * (top + 10 + bottom)
        edges[top < 2 or bottom < 2] += 1
    assert min(edges.values()) > 20


def test_an_object_larger_than_an_image_does_not_get_there() -> None:
    at_iteration(0)
    samples = [sample([[0, 0, 60, 30]], [7], (40, 60)), sample([], [], (40, 60), img_shape=(40, 59))]
    _, after = augment()(torch.rand(2, 3, 40, 60), samples)
    assert [of_image and of_image[0] for of_image in pasted(samples, after)][1] == []
    assert [label for label, _ in pasted(samples, after)[0]] == [7], 'its own image has room for it'


def test_batches_without_objects_stay_as_they_are() -> None:
    at_iteration(0)
    empty = [sample([], [], (16, 16)), sample(USELESS[0], [1], (16, 16))]
    images, after = augment()(torch.ones(2, 3, 16, 16), empty)
    assert (images == 1).all() and [len(data_sample.gt_instances) for data_sample in after] == [0, 1]


def test_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """By seed, iteration and process: places evenly, shares of the surroundings evenly, and not as mixup draws."""
    inputs, samples = batch()

    def boxes_of(iteration: int, seed: int = 0) -> list:
        at_iteration(iteration)
        return pasted(samples, augment(seed=seed)(inputs, samples)[1])

    assert boxes_of(1) == boxes_of(1) and boxes_of(1) != boxes_of(2) and boxes_of(1) != boxes_of(1, seed=1)
    first = boxes_of(1)
    monkeypatch.setattr(batch_copy_blend, 'get_rank', lambda: 1)
    assert boxes_of(1) != first
    ours, mix_up = augment(prob=0.5), MODELS.build({'type': 'BatchMixUp', 'prob': 0.5})
    fires = [(ours.ratio_at(i) is not None, mix_up.ratio_at(i) is not None) for i in range(4000)]
    # three and a half standard deviations
    assert all(count == pytest.approx(1000, abs=100) for count in Counter(fires).values())
    lefts = [box[0] for i in range(400) for label, box in boxes_of(i)[0] if label == 3]
    assert min(lefts) == 0 and max(lefts) == 60, 'of 80 px, for an object of 20'
    assert sum(lefts) / len(lefts) == pytest.approx(30, abs=3)  # three standard deviations


def test_batches_that_mixup_mixed_stay_as_they_are() -> None:
    """As DEIMv2's are: in a stage of both half of the batches is mixed, and half of the others blended."""
    preprocessor = MODELS.build(
        {
            'type': 'DetDataPreprocessor',
            'batch_augments': [
                {'type': 'BatchMixUp', 'prob': 0.5, 'stages': ['mosaic']},
                {'type': 'BatchCopyBlend', 'prob': 0.5, 'stages': ['mosaic', 'strong']},
            ],
        }
    )
    shares = {}
    for stage in ('mosaic', 'strong', 'plain'):
        seen: Counter[tuple[int, int]] = Counter()
        for iteration in range(400):
            at_iteration(iteration, stage)
            samples = [sample([[0, 0, 12, 12]], [0], (16, 16)), sample([], [], (16, 16))]
            blended = preprocessor({'inputs': [torch.ones(3, 16, 16)] * 2, 'data_samples': samples}, training=True)
            seen[tuple(len(data_sample.gt_instances) for data_sample in blended['data_samples'])] += 1
        # mixed: the neighbour's boxes; blended: the one object in both images
        shares[stage] = [seen[1, 1], seen[2, 1], seen[1, 0]]
        assert sum(shares[stage]) == 400, seen
    # four standard deviations
    assert shares['mosaic'] == [pytest.approx(200, abs=40), pytest.approx(100, abs=35), pytest.approx(100, abs=35)]
    assert shares['strong'] == [0, pytest.approx(200, abs=40), pytest.approx(200, abs=40)]  # four standard deviations
    assert shares['plain'] == [0, 0, 400]


@pytest.mark.parametrize('name', ['BatchMixUp', 'BatchCopyBlend'])
def test_bytes_are_rounded(name: str) -> None:
    at_iteration(0)
    images = torch.tensor([10, 21], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 16, 16)
    samples = [sample([], [], (16, 16)), sample([[0, 0, 16, 16]], [0], (16, 16))]
    mixed, _ = MODELS.build({'type': name, 'prob': 1.0, 'ratio_range': (0.25, 0.25)})(images, samples)
    assert mixed.dtype == torch.uint8 and (mixed[0] == 18).all(), '0.25 * 10 + 0.75 * 21 = 18.25'


def test_before_multi_scale() -> None:
    """Boxes of pasted objects grow with the images."""
    at_iteration(0)
    settings = [{'type': 'BatchCopyBlend', 'prob': 1.0}, {'type': 'BatchMultiScale', 'sizes': [32]}]
    preprocessor = MODELS.build({'type': 'DetDataPreprocessor', 'batch_augments': settings})
    blended = preprocessor(
        {'inputs': [torch.rand(3, 16, 16)], 'data_samples': [sample([[0, 0, 16, 16]], [3], (16, 16))]}, training=True
    )
    truth = blended['data_samples'][0].gt_instances
    assert truth.bboxes.tolist() == [[0, 0, 32, 32]] * 2 and truth.labels.tolist() == [3, 3]


def test_the_config_of_dino_blends_images_of_two_sizes() -> None:
    cfg = Config.fromfile(config_path('dino/dino-4scale_r50_copy-blend_8xb2-12e_coco.py'))
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    (ours,) = preprocessor.batch_augments
    iteration = next(i for i in range(99) if ours.ratio_at(i) is not None)
    for stage, count in (('plain', 0), ('strong', 2)):
        at_iteration(iteration, stage)
        samples = [sample([[4, 4, 30, 40]], [1], (48, 64)), sample([[10, 10, 50, 30]], [2], (64, 56))]
        images = [torch.randint(256, (3, *sample.img_shape), dtype=torch.uint8) for sample in samples]
        blended = preprocessor({'inputs': images, 'data_samples': samples}, training=True)
        assert [len(data_sample.gt_instances) for data_sample in blended['data_samples']] == [1 + count] * 2


def test_what_cannot_be_pasted_is_refused() -> None:
    at_iteration(0)
    inputs, samples = batch()
    for data_sample in samples:
        data_sample.gt_instances = InstanceData(
            **dict(data_sample.gt_instances.items()), masks=[None] * len(data_sample.gt_instances)
        )
    with pytest.raises(InputError, match='BatchCopyBlend mixes images with boxes only, but they come with masks'):
        augment()(inputs, samples)
    inputs, samples = batch()
    samples[0].gt_instances.keypoints = torch.zeros(len(samples[0].gt_instances), 17, 2)
    with pytest.raises(InputError, match='come with keypoints, which it cannot move; leave it out'):
        augment()(inputs, samples)


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({'prob': -1}, r'prob must lie in \[0, 1\]'),
        ({'num_objects': 0}, 'num_objects must be at least 1'),
        ({'min_area': -1}, 'min_area must be a number of at least 0'),
        ({'surroundings': 0.1}, 'surroundings must be two numbers'),
        ({'ratio_range': (0.5, 1.5)}, r'ratio_range\[1\] must lie in \[0, 1\]'),
        ({'stages': []}, 'stages must be a list of names'),
    ],
)
def test_arguments_out_of_range(settings: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        augment(**settings)

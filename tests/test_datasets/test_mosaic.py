"""A mosaic of four: where pixels and boxes go, what is drawn, and what is refused."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import BaseDataset
from tolerances import within

from mmdet_iouquery.datasets.mosaic import QuarterMosaic
from mmdet_iouquery.datasets.multi_image import FURTHER_IMAGES, FurtherImages, MultiImageDataset
from mmdet_iouquery.errors import InputError

STILL: dict[str, Any] = {'rotation': 0, 'shift': 0, 'scale_range': (1, 1)}


class Samples(list):
    """A data set of loaded samples."""

    metainfo = {'classes': ('a', 'b')}

    def full_init(self) -> None:
        """There is nothing to read."""

    def get_data_info(self, index: int) -> dict:
        return {'width': self[index]['img'].shape[1]}


def sample(height: int, width: int, colour: int, boxes: Sequence[Sequence[float]] = (), label: int = 0) -> dict:
    number = len(boxes)
    return {
        'img': np.full((height, width, 3), colour, np.uint8),
        'img_shape': (height, width),
        'gt_bboxes': HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        'gt_bboxes_labels': np.full(number, label, np.int64),
        'gt_ignore_flags': np.arange(number) % 2 == 1,
    }


class InTurn(FurtherImages):
    """Further images in their order instead of at random."""

    def draw(self, number: int) -> list[dict]:
        return [copy.deepcopy(entry) for entry in self._dataset[:number]]


def mosaic(samples: Sequence[dict], **settings: Any) -> dict:
    first, *others = copy.deepcopy(list(samples))
    return QuarterMosaic(**settings).transform({**first, FURTHER_IMAGES: InTurn(others)})


def test_four_quarters_by_hand() -> None:
    """Shorter sides of 20 px; quarters as high and wide as the largest; an image in each one's left upper corner."""
    four = [
        sample(40, 60, 10, [[0, 0, 60, 40]], label=1),  # to 20 x 30
        sample(80, 40, 20, [[10, 20, 30, 60]], label=2),  # to 40 x 20
        sample(20, 20, 30, label=3),
        sample(10, 30, 40, [[0, 0, 3, 10], [15, 5, 30, 10]], label=4),  # to 20 x 60
    ]
    results = mosaic(four, short_side=20, **STILL)
    image = results['img']
    assert image.shape == (80, 120, 3) and results['img_shape'] == (80, 120)
    expected = np.zeros_like(image)
    for colour, (top, left, bottom, right) in zip(
        (10, 20, 30, 40), ((0, 0, 20, 30), (0, 60, 40, 80), (40, 0, 60, 20), (40, 60, 60, 120))
    ):
        expected[top:bottom, left:right] = colour
    assert (image == expected).all()
    boxes = [[0, 0, 30, 20], [65, 10, 75, 30], [60, 40, 66, 60], [90, 50, 120, 60]]
    assert results['gt_bboxes'].tensor.tolist() == boxes
    assert results['gt_bboxes_labels'].tolist() == [1, 2, 4, 4]
    assert results['gt_ignore_flags'].tolist() == [False, False, False, True]
    assert results['gt_bboxes_labels'].dtype == np.int64


def test_sides_are_rounded_down_as_the_authors_do() -> None:
    results = mosaic([sample(480, 639, 1)] * 4, **STILL)
    assert results['img_shape'] == (640, 2 * 426)  # 320 * 639 / 480 = 426.0; torchvision's Resize truncates
    assert mosaic([sample(641, 480, 1)] * 4, **STILL)['img_shape'] == (2 * 427, 640)


@pytest.mark.parametrize('seed', range(12))
def test_boxes_enclose_what_they_enclosed(seed: int) -> None:
    """Patches of a colour each, turned, shifted, scaled: a box holds all of its patch, and fits one that is whole."""
    four = []
    for number in range(4):
        quarter = sample(90, 120, 0, [[30, 20, 80, 60]], label=number)
        quarter['img'][20:60, 30:80] = 50 * (number + 1)
        four.append(quarter)
    np.random.seed(seed)
    results = mosaic(four, short_side=90)
    height, width = results['img_shape']
    boxes, whole = results['gt_bboxes'].tensor.numpy(), 0
    for box, label in zip(boxes, results['gt_bboxes_labels']):
        rows, columns = np.nonzero((results['img'] == 50 * (label + 1)).all(-1))
        bounds = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (bounds[:2] >= box[:2] - 1).all() and (bounds[2:] <= box[2:] + 1).all()
        if (box[:2] > 0).all() and (box[2:] < [width, height]).all():
            whole += 1
            np.testing.assert_allclose(box, bounds, atol=1.5)  # a corner of a turned patch covers no whole pixel
    assert whole >= 1
    assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_a_turn_by_hand() -> None:
    """By 90 degrees about the middle of 40 x 40 px: what was on the right is below."""
    four = [sample(20, 20, 0), sample(20, 20, 200, [[0, 0, 20, 20]]), sample(20, 20, 0), sample(20, 20, 0)]
    transform = QuarterMosaic(short_side=20, **STILL)
    transform._draw_matrix = lambda height, width: np.array([[0.0, -1, 40], [1, 0, 0]])  # type: ignore[method-assign]
    results = transform.transform({**four[0], FURTHER_IMAGES: InTurn(four[1:])})
    assert (results['img'][20:, 20:] == 200).all() and results['img'].sum() == 3 * 400 * 200
    assert results['gt_bboxes'].tensor.tolist() == [[20, 20, 40, 40]]


def test_what_is_drawn() -> None:
    """Turns within 10 degrees, whole shifts within a tenth, scales from 0.5 to 1.5; the middle goes with the shift."""
    transform = QuarterMosaic()
    np.random.seed(0)
    matrices = np.array([transform._draw_matrix(640, 800) for _ in range(4000)])
    scale = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
    angle = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    shift = matrices @ [400, 320, 1] - [400, 320]
    for values, low, high in ((scale, 0.5, 1.5), (angle, -10, 10), (shift[:, 0], -80, 80), (shift[:, 1], -64, 64)):
        assert low <= values.min() + 1e-9 and values.max() <= high + 1e-9
        # six standard deviations of the mean of 4000
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
        assert values.std() == pytest.approx((high - low) / 12**0.5, rel=0.05)  # seven standard deviations
    np.testing.assert_allclose(shift, shift.round(), **within(torch.float64))


def test_no_boxes_at_all() -> None:
    results = mosaic([sample(30, 40, 5)] * 4, short_side=30)
    assert results['gt_bboxes'].tensor.shape == (0, 4) and results['gt_bboxes_labels'].shape == (0,)


def test_boxes_that_leave_the_canvas_go_with_their_labels() -> None:
    four = [sample(40, 40, 1, [[0, 0, 4, 4], [0, 0, 40, 40]], label=n) for n in range(4)]
    results = mosaic(four, short_side=40, rotation=0, shift=0, scale_range=(1.5, 1.5))
    assert results['gt_bboxes_labels'].tolist() == [0, 1, 2, 3, 3]  # the last one's lies in the middle of the canvas
    assert results['gt_bboxes'].tensor[[0, 3]].tolist() == [[0, 0, 40, 40], [40, 40, 46, 46]]


# --- the data set -----------------------------------------------------------------------------------------------------


def dataset(samples: Samples, *pipeline: Any) -> MultiImageDataset:
    return DATASETS.build({'type': 'MultiImageDataset', 'dataset': samples, 'pipeline': list(pipeline)})


def test_other_images_are_drawn_evenly_by_numpys_generator() -> None:
    samples = Samples(sample(20, 20, colour) for colour in range(1, 9))
    images = dataset(samples, {'type': 'QuarterMosaic', 'short_side': 20, **STILL})
    np.random.seed(3)
    drawn: Counter = Counter()
    for _ in range(800):
        image = images[2]['img']
        assert (image[:20, :20] == 3).all()
        drawn.update(int(image[y, x, 0]) for y, x in ((0, 20), (20, 0), (20, 20)))
    # four standard deviations
    assert set(drawn) == set(range(1, 9)) and all(count == pytest.approx(300, abs=70) for count in drawn.values())
    np.random.seed(4)
    first = images[5]['img']
    np.random.seed(4)
    assert (images[5]['img'] == first).all()
    assert len(images) == 8 and images.metainfo == samples.metainfo and images.get_data_info(0) == {'width': 20}


def test_no_other_image_is_loaded_unless_one_is_asked_for() -> None:
    class Counting(Samples):
        loaded = 0

        def __getitem__(self, index: Any) -> Any:
            self.loaded += 1
            return super().__getitem__(index)

    samples = Counting(sample(20, 20, 1) for _ in range(4))
    choice = {'type': 'RandomChoice', 'prob': [0.5, 0.5], 'transforms': [[{'type': 'QuarterMosaic'}], []]}
    images = dataset(samples, choice)
    np.random.seed(0)
    loads = []
    for _ in range(40):
        before = samples.loaded
        images[0]
        loads.append(samples.loaded - before)
    assert set(loads) == {1, 4} and 10 <= loads.count(4) <= 30


def test_copies_of_a_sample_do_not_copy_the_data_set() -> None:
    samples = Samples([sample(20, 20, 1)])
    assert copy.deepcopy({FURTHER_IMAGES: FurtherImages(samples)})[FURTHER_IMAGES]._dataset is samples


def test_another_sample_is_taken_where_the_pipeline_gives_none() -> None:
    samples = Samples([sample(20, 20, 1, [[0, 0, 5, 5]]), sample(20, 20, 2, [[0, 0, 20, 20]])])
    dropping = {'type': 'FilterAnnotations', 'min_gt_bbox_wh': (10, 10), 'keep_empty': True}
    np.random.seed(0)
    assert dataset(samples, dropping)[0]['img'][0, 0, 0] == 2
    with pytest.raises(InputError, match='gave nothing for 16 images on end'):
        dataset(Samples(samples[:1] * 2), dropping)[0]


class Files(BaseDataset):
    """Image files, one of them damaged."""

    def load_data_list(self) -> list[dict]:
        names = [Path(self.data_root) / f'{number}.png' for number in range(4)]
        box = {'bbox': [0, 0, 20, 20], 'bbox_label': 0, 'ignore_flag': 0}
        return [{'img_path': str(name), 'instances': [box]} for name in names]


def test_an_image_that_can_not_be_read_is_never_in_a_mosaic(tmp_path: Path) -> None:
    for number in range(4):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.full((20, 20, 3), number + 1, np.uint8))
    (tmp_path / '1.png').write_bytes(b'no image')
    load = [
        {'type': 'LoadImageFromFile', '_scope_': 'mmdet_iouquery', 'on_error': 'skip'},
        {'type': 'LoadAnnotations', 'with_bbox': True},
    ]
    files = Files(data_root=str(tmp_path), pipeline=load, serialize_data=False)
    images = dataset(files, {'type': 'QuarterMosaic', 'short_side': 20, **STILL})  # type: ignore[arg-type]
    seen: set[int] = set()
    for index in range(40):
        seen |= {int(value) for value in np.unique(images[index % 4]['img'])}
    assert seen == {1, 3, 4}
    assert files.pipeline.transforms[0].skipped > 10


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_single_image_is_refused() -> None:
    with pytest.raises(InputError, match='mixes several images, but its data set has 1; add images, or train on the'):
        dataset(Samples([sample(20, 20, 1)]), {'type': 'QuarterMosaic'})


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        ({'gt_masks': None}, 'moves boxes only, but there are gt_masks'),
        ({'img': np.zeros((20, 20), np.uint8)}, r'takes images \(height, width, 3\) of uint8'),
    ],
)
def test_samples_that_are_refused(change: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        dataset(Samples([{**sample(20, 20, 1), **change}] * 2), {'type': 'QuarterMosaic'})[0]


def test_an_image_without_loaded_boxes_is_refused() -> None:
    bare = {key: value for key, value in sample(20, 20, 1).items() if not key.startswith('gt_')}
    with pytest.raises(InputError, match=r"takes images with boxes: .* dict\(type='LoadAnnotations', with_bbox=True"):
        dataset(Samples([bare] * 2), {'type': 'QuarterMosaic'})[0]


def test_a_data_set_that_hands_out_no_images_is_refused() -> None:
    with pytest.raises(InputError, match=r'QuarterMosaic needs further images: .*MultiImageDataset'):
        QuarterMosaic().transform(sample(20, 20, 1))


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({'short_side': 0}, 'short_side must be at least 1'),
        ({'rotation': 200}, r'rotation must lie in \[0, 180\]'),
        ({'shift': 2}, r'shift must lie in \[0, 1\]'),
        ({'scale_range': (1.5, 0.5)}, 'scale_range must have its lower number first'),
        ({'scale_range': (0, 1)}, r'scale_range\[0\] must be a number of at least 0.01'),
    ],
)
def test_arguments_out_of_range(settings: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        TRANSFORMS.build({'type': 'QuarterMosaic', **settings})

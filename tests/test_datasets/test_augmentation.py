"""Our augmentation is mmdet's: equal seeds give equal boxes and, up to rounding, equal pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from image_files import encoded, random_image
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import init_default_scope
from pipelines import built, pipeline, run

from mmdet_iouquery.datasets import transforms
from mmdet_iouquery.datasets.augmentation import Colours, cut, distort
from mmdet_iouquery.errors import InputError

SCALE = (96, 64)
SMALL = dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False)
PHOTOMETRIC = [dict(type='PhotoMetricDistortion'), dict(type='ToUint8')]
EXPAND_AND_CROP = [
    dict(type='Expand', mean=[0, 0, 0], ratio_range=(1, 4), prob=0.5),
    dict(type='RandomApply', transforms=dict(type='MinIoURandomCrop'), prob=0.8),
]
MMDETS = [
    dict(type='LoadImageFromFile', _scope_='mmdet_iouquery'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='CleanBoxes'),
    PHOTOMETRIC[0],
    *EXPAND_AND_CROP,
    SMALL,
    dict(type='RandomFlip', prob=0.5),
    dict(type='ToUint8'),
    dict(type='Resize', scale=SCALE, keep_ratio=False, interpolation='bilinear', backend='pillow'),
    SMALL,
    dict(type='PackDetInputs'),
]
SIZES = [(1, 1), (1, 9), (7, 2), (16, 16), (120, 80), (80, 120), (300, 50), (64, 200)]  # width, height
WHITE, GREY, RED, GREEN = [255, 255, 255], [100, 100, 100], [0, 0, 255], [0, 255, 0]  # BGR


def random_boxes(rng: np.random.Generator, width: int, height: int) -> list[list[float]]:
    """None to six boxes of all sizes, some over the border; half the time on whole px, where centres meet borders."""
    boxes = []
    for _ in range(rng.integers(7)):
        centre = rng.uniform(0, 1, 2) * (width, height)
        half = np.exp(rng.uniform(-4, 0, 2)) * (width, height) / 1.5
        boxes.append([*(centre - half), *(centre + half)])
    return np.round(boxes, 0 if rng.integers(2) else 3).tolist()


def sample(rng: np.random.Generator, width: int, height: int) -> dict[str, Any]:
    """An image in a pipeline, its boxes clean and with labels and flags."""
    boxes = HorizontalBoxes(np.reshape(random_boxes(rng, width, height), (-1, 4)), dtype=torch.float32)
    boxes.clip_((height, width))
    return {
        'img': rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        'img_shape': (height, width),
        'gt_bboxes': boxes,
        'gt_bboxes_labels': np.arange(len(boxes)),
        'gt_ignore_flags': np.arange(len(boxes)) % 3 == 2,
    }


def apply(steps: list[dict[str, Any]], results: dict[str, Any], seed: int) -> tuple[dict[str, Any], float]:
    """What comes out, and the next number of the generator."""
    init_default_scope('mmdet')
    results = {key: value.clone() if key == 'gt_bboxes' else value for key, value in results.items()}
    np.random.seed(seed)
    for step in steps:
        results = TRANSFORMS.build(step)(results)
    return results, np.random.random()


def difference(a: Any, b: Any) -> np.ndarray:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return np.abs(np.asarray(a, int) - np.asarray(b, int))


def test_the_papers_pipeline_is_mmdets_draw_for_draw(tmp_path: Path) -> None:
    """Boxes, labels, crowds and shapes are equal, pixels but for the rounding of the resize, which has two passes."""
    rng = np.random.default_rng(0)
    ours, theirs = built(pipeline('coco', scale=SCALE)), built(MMDETS)
    assert {'DistortColours', 'ExpandAndCrop', 'AntialiasedResize'} <= {
        type(transform).__name__ for transform in ours.transforms
    }
    differing, cropped_away = [], 0
    for seed in range(160):
        width, height = SIZES[seed % len(SIZES)]
        form = 'L' if seed % 5 == 4 else 'RGB'
        path = tmp_path / f'{seed}.png'
        path.write_bytes(encoded(random_image(width, height, seed=seed, blur=1 + seed % 3).convert(form), 'PNG'))
        boxes = random_boxes(rng, width, height)
        packed = []
        for transforms_of in (ours, theirs):
            np.random.seed(seed)
            packed.append(run(transforms_of, path, boxes))
            packed[-1]['drawn next'] = np.random.random()
        a, b = packed
        assert a['drawn next'] == b['drawn next']
        for kind in ('gt_instances', 'ignored_instances'):
            actual, expected = a['data_samples'].get(kind), b['data_samples'].get(kind)
            assert torch.equal(actual.bboxes.tensor, expected.bboxes.tensor)
            assert torch.equal(actual.labels, expected.labels)
        assert a['data_samples'].metainfo == b['data_samples'].metainfo
        distance = difference(a['inputs'].numpy(), b['inputs'].numpy())
        assert distance.max() <= 2
        differing.append(distance.mean())
        kept = len(a['data_samples'].gt_instances) + len(a['data_samples'].ignored_instances)
        cropped_away += len(boxes) - kept
    assert np.mean(differing) < 0.05
    assert cropped_away > 50  # the draws do reach the boxes


def test_colours_are_distorted_as_mmdet_does() -> None:
    """Noise over the whole range, dark noise (brightness takes it below 0) and grey; more rows than one strip has."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (150, 40, 3), dtype=np.uint8)
    images = [noise, noise // 7, np.repeat(noise[..., :1], 3, axis=2), noise[:1, :1]]
    unequal = []
    for seed in range(200):
        image = {'img': images[seed % 4]}
        (ours, next_of_ours), (theirs, next_of_theirs) = (
            apply(steps, image, seed) for steps in ([dict(type='DistortColours')], PHOTOMETRIC)
        )
        assert next_of_ours == next_of_theirs
        distance = difference(ours['img'], theirs['img'])
        assert distance.max() <= 1
        unequal.append((distance > 0).mean())
    assert np.mean(unequal) < 1e-3


@pytest.mark.parametrize(
    ('colour', 'change', 'expected'),
    [
        (GREY, dict(brightness=10), [110] * 3),
        (GREY, dict(brightness=-30), [70] * 3),
        (GREY, dict(contrast=1.5), [150] * 3),
        (GREY, dict(brightness=10, contrast=0.5), [55] * 3),
        (WHITE, dict(brightness=20, contrast=0.6), [165] * 3),  # nothing is cut in between
        (WHITE, dict(contrast=1.5), WHITE),
        ([200, 100, 0], dict(saturation=0.5), [200, 150, 100]),
        ([200, 100, 100], dict(saturation=1.5), [200, 50, 50]),
        ([200, 50, 100], dict(saturation=1.5), [200, 0, 67]),  # 0.75 * 1.5 is cut at 1: 200 - 100 / 0.75
        (RED, dict(hue=120), GREEN),
        (GREEN, dict(hue=-120), RED),
        ([0, 100, 255], dict(hue=-60), [155, 0, 255]),
        ([1, 2, 3], dict(order=(2, 0, 1)), [3, 1, 2]),
    ],
)
def test_colours_by_hand(colour: list[int], change: dict[str, Any], expected: list[int]) -> None:
    image = np.full((70, 3, 3), colour, np.uint8)
    for contrast_first in (False, True):
        distorted = distort(image, Colours(contrast_first=contrast_first, **change))
        assert difference(distorted, np.broadcast_to(np.uint8(expected), image.shape)).max() == 0
    assert (image == colour).all()  # the image given stays as it is


def test_contrast_first_or_last_is_cut_by_the_saturation_between() -> None:
    """A dark channel of -20 with a value of 80 has a saturation of 1.25, which doubling cuts at 1: both ways 0."""
    image = np.full((1, 1, 3), [100, 0, 0], np.uint8)
    colours = Colours(brightness=-20, contrast=0.5, saturation=2.0)
    for first in (False, True):
        assert distort(image, colours._replace(contrast_first=first)).tolist() == [[[40, 0, 0]]]


def test_images_are_expanded_and_cropped_as_mmdet_does() -> None:
    """To the last pixel and box, with the same random numbers; samples without boxes, without labels and flags too."""
    rng = np.random.default_rng(0)
    windows = set()
    for seed in range(400):
        results = sample(rng, *SIZES[seed % len(SIZES)])
        if seed % 7 == 6:
            del results['gt_bboxes_labels'], results['gt_ignore_flags']
        (ours, next_of_ours), (theirs, next_of_theirs) = (
            apply(steps, results, seed) for steps in ([dict(type='ExpandAndCrop')], EXPAND_AND_CROP)
        )
        assert next_of_ours == next_of_theirs and ours.keys() == theirs.keys() == results.keys()
        assert torch.equal(ours['gt_bboxes'].tensor, theirs['gt_bboxes'].tensor)
        for key in results.keys() - {'gt_bboxes', 'img_shape'}:
            assert np.array_equal(ours[key], theirs[key]), key
        assert ours['img_shape'] == theirs['img_shape'] == ours['img'].shape[:2]
        windows.add((results['img_shape'], ours['img_shape']))
    assert len(windows) > 150


def test_settings_of_expansion_and_crop_are_mmdets() -> None:
    rng = np.random.default_rng(0)
    ours = dict(type='ExpandAndCrop', ratio_range=(1.5, 2), expand_prob=1, min_ious=(0.4,), min_crop_size=0.7)
    theirs = [
        dict(type='Expand', ratio_range=(1.5, 2), prob=1),
        dict(type='RandomApply', transforms=dict(type='MinIoURandomCrop', min_ious=(0.4,), min_crop_size=0.7), prob=1),
    ]
    for seed in range(30):
        results = sample(rng, 90, 70)
        (actual, _), (expected, _) = (apply(steps, results, seed) for steps in ([dict(ours, crop_prob=1)], theirs))
        assert np.array_equal(actual['img'], expected['img'])
        assert torch.equal(actual['gt_bboxes'].tensor, expected['gt_bboxes'].tensor)


@pytest.mark.parametrize(
    ('window', 'expected'),
    [
        ((10, 20, 13, 22), [[1, 2, 3], [4, 5, 6]]),
        ((11, 21, 13, 22), [[5, 6]]),
        ((9, 19, 12, 21), [[0, 0, 0], [0, 1, 2]]),
        ((12, 21, 15, 23), [[6, 0, 0], [0, 0, 0]]),
        ((9, 19, 14, 23), [[0] * 5, [0, 1, 2, 3, 0], [0, 4, 5, 6, 0], [0] * 5]),
        ((0, 0, 2, 1), [[0, 0]]),
        ((13, 20, 15, 22), [[0, 0], [0, 0]]),
        ((11, 30, 13, 31), [[0, 0]]),
    ],
)
def test_a_window_by_hand(window: tuple[int, int, int, int], expected: list[list[int]]) -> None:
    """Of an image of 3 x 2 px whose corner lies at (10, 20)."""
    image = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)[..., None]
    assert cut(image, 10, 20, window)[..., 0].tolist() == expected


def test_nothing_is_copied_within_the_image() -> None:
    image = np.zeros((6, 8, 3), np.uint8)
    assert np.shares_memory(cut(image, 0, 0, (2, 1, 8, 6)), image)


@pytest.mark.parametrize('vector_code', [True, False])
@pytest.mark.parametrize('keep_ratio', [False, True])
def test_bytes_are_resized_as_pillow_does(vector_code: bool, keep_ratio: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that mmdet's Resize leaves is equal; pixels differ by rounding, by none where Pillow does the work."""
    monkeypatch.setattr(transforms, 'torch_resizes_quickly', lambda: vector_code)
    rng = np.random.default_rng(0)
    for size in SIZES * 3:
        results = sample(rng, *size)
        mirror = (slice(None, None, int(rng.choice([-1, 1]))), slice(None, None, int(rng.choice([-1, 1]))))
        results['img'] = results['img'][mirror]
        scale = tuple(rng.integers(1, 90, 2).tolist())
        (ours, _), (theirs, _) = (
            apply([dict(type=kind, scale=scale, keep_ratio=keep_ratio, **options)], results, 0)
            for kind, options in (('AntialiasedResize', {}), ('Resize', dict(backend='pillow')))
        )
        assert ours.keys() == theirs.keys()
        assert difference(ours.pop('img'), theirs.pop('img')).max() <= 2 * vector_code  # rounded in each of two passes
        assert torch.equal(ours.pop('gt_bboxes').tensor, theirs.pop('gt_bboxes').tensor)
        for key, value in theirs.items():
            assert np.array_equal(ours[key], value), key


def test_an_image_of_the_size_asked_for_stays_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for view in (image, image[:, ::-1], image[::-1], cv2.resize(image, (60, 40))[3:23, 5:35]):
        resized = transforms.resized(view, (30, 20))
        assert np.array_equal(resized, view) and not np.shares_memory(resized, view)


def test_packing_copies_nothing() -> None:
    resized = transforms.resized(np.zeros((20, 30, 3), np.uint8), (16, 8))
    packed = TRANSFORMS.build(dict(type='PackDetInputs'))({'img': resized})['inputs']
    assert packed.is_contiguous() and tuple(packed.shape) == (3, 8, 16)
    assert packed.data_ptr() == resized.ctypes.data


@pytest.mark.parametrize('kind', ['DistortColours', 'ExpandAndCrop', 'AntialiasedResize'])
def test_images_of_floats_and_of_one_channel_are_refused(kind: str) -> None:
    results = sample(np.random.default_rng(0), 8, 6)
    step = dict(type=kind, scale=(4, 4)) if kind == 'AntialiasedResize' else dict(type=kind)
    for image, words in ((results['img'].astype(np.float32), 'float32'), (results['img'][..., 0], r'\(6, 8\)')):
        with pytest.raises(InputError, match=rf'{kind} takes images .* of uint8, got .*{words}.*put ToUint8 behind'):
            apply([step], {**results, 'img': image}, 0)


def test_masks_are_refused() -> None:
    results = sample(np.random.default_rng(0), 8, 6)
    with pytest.raises(InputError, match="ExpandAndCrop moves boxes only, but there are gt_masks; take mmdet's"):
        apply([dict(type='ExpandAndCrop')], {**results, 'gt_masks': []}, 0)


@pytest.mark.parametrize(
    ('step', 'message'),
    [
        (dict(type='DistortColours', brightness_delta=-1), r'brightness_delta must lie in \[0, 255\], got -1'),
        (dict(type='DistortColours', hue_delta=181), r'hue_delta must lie in \[0, 180\], got 181'),
        (dict(type='DistortColours', contrast_range=(1.5, 0.5)), 'contrast_range must have its lower number first'),
        (dict(type='DistortColours', saturation_range=0.5), 'saturation_range must be two numbers'),
        (dict(type='ExpandAndCrop', ratio_range=(0.5, 4)), r'ratio_range\[0\] must be a number of at least 1, got 0.5'),
        (dict(type='ExpandAndCrop', expand_prob=2), r'expand_prob must lie in \[0, 1\], got 2'),
        (dict(type='ExpandAndCrop', crop_prob='often'), r"crop_prob must lie in \[0, 1\], got 'often'"),
        (dict(type='ExpandAndCrop', min_ious=(0.1, 3)), r'min_ious\[1\] must lie in \[0, 1\], got 3'),
    ],
)
def test_bad_settings_are_named(step: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TRANSFORMS.build(step)


def test_what_they_say_of_themselves() -> None:
    assert repr(TRANSFORMS.build(dict(type='DistortColours'))) == (
        'DistortColours(brightness_delta=32, contrast_range=(0.5, 1.5), saturation_range=(0.5, 1.5), hue_delta=18)'
    )
    assert repr(TRANSFORMS.build(dict(type='ExpandAndCrop'))) == (
        'ExpandAndCrop(ratio_range=(1, 4), expand_prob=0.5, min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3, '
        'crop_prob=0.8)'
    )

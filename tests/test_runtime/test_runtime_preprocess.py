"""The runtime's pixels are those of the test pipeline, from files of every kind."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import ALPHA, GREY, PLAIN, RGB, UPRIGHT_AGAIN, encoded, half_of_zeros, random_image, turned
from mmengine.config import Config
from PIL import Image
from pipelines import built

from iouquery_runtime import InputError
from iouquery_runtime.metadata import Resize
from iouquery_runtime.preprocess import read_image, resized
from mmdet_iouquery import config_path
from mmdet_iouquery.datasets.image_files import ImageError, decode

DEEP = (np.arange(48 * 32, dtype=np.uint32) * 42 % 65536).astype(np.uint16).reshape(32, 48)
DEEP_COLOURS = np.dstack([DEEP, DEEP[::-1], DEEP[:, ::-1]])
NOISE = random_image(90, 70, blur=0)


def by_opencv(samples: np.ndarray, extension: str) -> bytes:
    return cv2.imencode(extension, samples)[1].tobytes()


FILES = {
    **PLAIN,
    **{
        f'jpeg, quality {quality}, subsampling {subsampling}': encoded(
            NOISE, 'JPEG', quality=quality, subsampling=subsampling, progressive=quality == 75
        )
        for quality, subsampling in ((30, 2), (75, 2), (75, 1), (95, 0))
    },
    **{f'jpeg turned by {orientation}': turned(RGB, orientation) for orientation in range(1, 9)},
    **{f'png turned by {orientation}': turned(RGB, orientation, 'PNG') for orientation in (2, 5, 6)},
    **{f'tiff turned by {orientation}': turned(RGB, orientation, 'TIFF') for orientation in (3, 6, 7)},
    'jpeg with an unknown orientation': turned(RGB, 9),
    'jpeg with a thousand zeros behind it': PLAIN['jpeg'] + bytes(1000),
    'jpeg without its end marker': PLAIN['jpeg'][:-2],
    'lossy webp': encoded(NOISE, 'WEBP', quality=60),
    '16-bit grey png': by_opencv(DEEP, '.png'),
    '16-bit png': by_opencv(DEEP_COLOURS, '.png'),
    '16-bit grey tiff': by_opencv(DEEP, '.tiff'),
    '16-bit grey jpeg 2000': by_opencv(DEEP, '.jp2'),
    '16-bit pgm': by_opencv(DEEP, '.pgm'),
    '2-bit palette png': encoded(RGB.convert('P', palette=Image.Palette.ADAPTIVE, colors=4), 'PNG', bits=2),
    'png with a transparent colour': encoded(RGB, 'PNG', transparency=(0, 0, 0)),
    'transparent gif': encoded(RGB.convert('P'), 'GIF', transparency=5),
    'tiff with alpha': encoded(ALPHA, 'TIFF'),
    'bilevel tiff': encoded(RGB.convert('1'), 'TIFF', compression='group4'),
    'jpeg in tiff': encoded(RGB, 'TIFF', compression='jpeg'),
    'grey tiff with alpha': encoded(ALPHA.convert('LA'), 'TIFF'),
    'jpeg 2000': encoded(RGB, 'JPEG2000'),
    'pgm': encoded(GREY, 'PPM'),
}
UP_TO_ONE = {
    '16-bit tiff': by_opencv(DEEP_COLOURS, '.tiff'),
    '16-bit ppm': by_opencv(DEEP_COLOURS, '.ppm'),
    '16-bit jpeg 2000': by_opencv(DEEP_COLOURS, '.jp2'),
    'ycbcr tiff': encoded(RGB.convert('YCbCr'), 'TIFF'),
}
"""Of these Pillow hands out no more than 8 bits a colour, rounded otherwise, or converts by another formula."""


@pytest.fixture(scope='module', params=['rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', 'quickstart/rtdetr_r18vd_digits.py'])
def pipeline(request: pytest.FixtureRequest) -> Any:
    """The test pipeline of a config, and the height and width that it resizes to."""
    steps = Config.fromfile(config_path(request.param)).test_dataloader.dataset.pipeline
    (scale,) = (step.scale for step in steps if step.type == 'Resize')
    return built([step for step in steps if step.type != 'LoadAnnotations']), (scale[1], scale[0])


@pytest.mark.parametrize('kind', [*FILES, *UP_TO_ONE])
def test_pixels_are_those_of_the_test_pipeline(kind: str, pipeline: Any, tmp_path: Path) -> None:
    path = tmp_path / 'image'
    path.write_bytes({**FILES, **UP_TO_ONE}[kind])
    transforms, size = pipeline
    packed = transforms({'img_path': str(path), 'img_id': 1, 'instances': []})
    expected = packed['inputs'].numpy().transpose(1, 2, 0)[..., ::-1]
    image = read_image(path, '')
    assert image.shape[:2] == packed['data_samples'].ori_shape
    actual = resized(image, *size, Resize())
    assert actual.dtype == np.uint8 and actual.shape == (*size, 3) == expected.shape
    assert np.abs(actual.astype(int) - expected).max() <= (kind in UP_TO_ONE)


@pytest.mark.parametrize('kind', FILES)
def test_an_image_of_pillow_is_read_as_its_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / 'image'
    path.write_bytes(FILES[kind])
    if kind == 'jpeg without its end marker':
        with Image.open(path) as image, pytest.raises(InputError, match=r'images\[3\] cannot be decoded: .*truncated'):
            read_image(image, 'images[3]')
        return
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(image, 'images[3]'), read_image(path, ''))


@settings(deadline=None, max_examples=200)
@given(*[st.integers(1, 90)] * 4, st.integers(0, 9))
def test_resizing_without_antialiasing_is_opencv_s(
    height: int, width: int, to_height: int, to_width: int, seed: int
) -> None:
    """Which is what mmdet's ``Resize`` does by default."""
    if seed == 0:
        height, width = 2 * to_height, 2 * to_width
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = cv2.resize(image, (to_width, to_height), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resized(image, to_height, to_width, Resize(antialias=False)), expected)


def test_a_webp_is_turned_as_its_exif_data_say(tmp_path: Path) -> None:
    """By OpenCV from version 5 on; 4.12 passes over it."""
    path = tmp_path / 'image.webp'
    for orientation, back in UPRIGHT_AGAIN.items():
        path.write_bytes(turned(RGB, orientation, 'WEBP', lossless=True))
        np.testing.assert_array_equal(read_image(path, ''), np.asarray(RGB.transpose(back)))


def test_orientation_comes_from_exif_alone(tmp_path: Path) -> None:
    """Pillow goes by XMP as well, OpenCV does not."""
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = tmp_path / 'image.jpg'
    path.write_bytes(encoded(RGB, 'JPEG', xmp=xmp))
    with Image.open(path) as image:
        assert image.getexif().get(0x0112) == 6
    assert read_image(path, '').shape == (32, 48, 3)
    broken = turned(RGB, 6).replace(b'Exif\0\0MM', b'Exif\0\0XX').replace(b'Exif\0\0II', b'Exif\0\0XX')
    path.write_bytes(broken)
    assert b'Exif\0\0XX' in broken and read_image(path, '').shape == (32, 48, 3)


def test_arrays_are_rgb_unless_said_otherwise() -> None:
    array = np.asarray(RGB)
    np.testing.assert_array_equal(read_image(array, ''), array)
    np.testing.assert_array_equal(read_image(array, '', bgr=True), array[..., ::-1])
    np.testing.assert_array_equal(read_image(RGB, '', bgr=True), array)
    expected = RGB.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((30, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized(array[::-1], 20, 30, Resize()), np.asarray(expected))


@pytest.mark.parametrize('data', [kind for kind in FILES if kind.split()[0] in ('jpeg', 'png', 'webp', 'gif', 'bmp')])
def test_a_file_that_is_cut_is_refused_as_in_training(data: str, tmp_path: Path) -> None:
    """What is taken all the same, as of a GIF that lacks its last frame, has the same pixels."""
    path = tmp_path / 'image.jpg'
    whole = FILES[data]
    for content in (b'', whole[: len(whole) // 2], half_of_zeros(whole), whole[:-40]):
        path.write_bytes(content)
        try:
            expected = decode(content)
        except ImageError:
            with pytest.raises(InputError, match=rf'^{path}'):
                read_image(path, '')
        else:
            np.testing.assert_array_equal(read_image(path, ''), expected[..., ::-1])


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', [kind for kind in FILES if not kind.startswith('very')])
def test_damage_of_any_kind_is_met_with_a_sentence_or_an_image(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with no other exception."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100_000)  # damaged sizes can be vast
    random = np.random.default_rng(0)
    for _ in range(20):
        data = np.frombuffer(FILES[kind], np.uint8).copy()
        data[random.integers(0, min(len(data), 200 if random.random() < 0.5 else len(data)), 3)] = random.integers(
            0, 256, 3
        )
        content = data[: random.integers(1, len(data) + 1)] if random.random() < 0.3 else data
        try:
            image = read_image(content.tobytes(), 'image')
        except InputError as error:
            assert str(error).startswith('image') and '\n' not in str(error)  # noqa: PT017  some are images still
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


REFUSED = {
    'floating-point samples': (
        by_opencv(np.random.rand(8, 8).astype(np.float32), '.tiff'),
        'samples of floating-point',
    ),
    '32 bits': (encoded(GREY.convert('I'), 'TIFF'), 'samples of 32 bits; save it in RGB or grey'),
    'lab': (encoded(Image.merge('LAB', RGB.split()), 'TIFF'), 'samples of colours in LAB'),
    'a page': (b'<!DOCTYPE html><html>', 'is not an image that Pillow'),
    'nothing': (b'', 'the file is empty'),
    'cut': (PLAIN['jpeg'][:300], 'the file is cut short: the JPEG has no end; repair the file, or leave it out'),
    'cut tiff': (PLAIN['tiff'][:-900], 'cannot be decoded'),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_what_cannot_be_read_is_named_with_the_reason(kind: str, tmp_path: Path) -> None:
    data, message = REFUSED[kind]
    path = tmp_path / 'image'
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as raised:
        read_image(str(path), 'images[0]')
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        (np.zeros((3, 8, 9), np.uint8), r'images\[2\] is an array of shape \(3, 8, 9\) and type uint8; it must be'),
        (np.zeros((8, 9, 3), np.float32), r'shape \(8, 9, 3\) and type float32'),
        (np.zeros((8, 9), np.uint8), r'shape \(8, 9\)'),
        (np.zeros((0, 9, 3), np.uint8), r'shape \(0, 9, 3\)'),
        (b'bytes', r'images\[2\] is not an image that Pillow'),
        (b'', r'images\[2\]: the file is empty; repair the file'),
        ([1], r'images\[2\] is a builtins.list; give a path, the bytes of a file, a PIL image or a NumPy array'),
        ('no such file', 'no such file cannot be read: No such file or directory'),
    ],
)
def test_what_is_no_image_is_refused_with_what_it_is(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_image(source, 'images[2]')


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    path = tmp_path / 'image.png'
    path.write_bytes(PLAIN['png'])
    with pytest.raises(InputError, match=r'cannot be decoded: Image size \(1536 pixels\) exceeds limit'):
        read_image(path, '')
    with pytest.raises(Image.DecompressionBombError), Image.open(BytesIO(PLAIN['png'])):
        pass

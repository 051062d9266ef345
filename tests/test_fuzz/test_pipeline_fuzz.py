"""Any file and any boxes through the shipped training pipelines: lawful samples, or the error that we promise."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from image_files import encoded, random_image, turned
from mmengine.dataset import Compose
from pipelines import CONFIGS, built, check_laws, pipeline, run

from mmdet_iouquery.datasets.image_files import ImageError, check, decode, fault
from mmdet_iouquery.errors import InputError

SCALE = (64, 48)

FORMS = st.sampled_from(['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM'])
MODES = {
    'JPEG': ('RGB', 'L', 'CMYK'),
    'PNG': ('RGB', 'L', 'P', 'RGBA', 'LA', '1'),
    'WEBP': ('RGB', 'RGBA'),
    'GIF': ('P', 'L'),
    'BMP': ('RGB', 'L', 'P', '1'),
    'TIFF': ('RGB', 'L', 'CMYK', 'P', '1'),
    'PPM': ('RGB', 'L'),
}
# one side up to 3000, the other such that a case takes milliseconds
SIDES = st.one_of(
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.tuples(st.integers(1, 3000), st.integers(1, 4)),
    st.tuples(st.integers(1, 4), st.integers(1, 3000)),
)
NUMBERS = st.one_of(
    st.floats(-50, 150, width=32),
    st.floats(allow_nan=True, allow_infinity=True, width=32),
    st.sampled_from([0.0, -0.0, 1e-30, 1e30, 3.4e38, float('nan'), float('inf'), -float('inf'), 79.0, 80.0]),
)
BOXES = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=12)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('fuzz')


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, tuple[int, int]]:
    """A whole file of any kind, and the size that an annotator would have written down."""
    form = draw(FORMS)
    width, height = draw(SIDES)
    image = random_image(width, height, seed=draw(st.integers(0, 3)), blur=0).convert(
        draw(st.sampled_from(MODES[form]))
    )
    orientation = draw(st.integers(1, 8)) if form in ('JPEG', 'PNG') else 1
    return (turned(image, orientation, form) if orientation > 1 else encoded(image, form)), (width, height)


@cache
def transforms(name: str) -> Compose:
    return built(pipeline(name, scale=SCALE))


def augmented(name: str, path: Path, boxes: Any, seed: int, **options: Any) -> Any:
    """The outcome of a pipeline, whose augmentation is drawn by ``seed``."""
    random.seed(seed)
    np.random.seed(seed)
    return run(transforms(name), path, boxes, **options)


@pytest.mark.parametrize('name', CONFIGS)
@given(made=files(), boxes=BOXES, seed=st.integers(0, 2**16), named=st.booleans())
def test_whole_files_with_any_boxes_become_lawful_samples(
    name: str, folder: Path, made: tuple[bytes, tuple[int, int]], boxes: Any, seed: int, named: bool
) -> None:
    data, (width, height) = made
    path = folder / 'whole'
    path.write_bytes(data)
    check_laws(augmented(name, path, boxes, seed, **dict(width=width, height=height) if named else {}), SCALE)


@pytest.mark.parametrize('name', CONFIGS)
@given(seed=st.integers(0, 2**16), boxes=BOXES, side=st.integers(2000, 3000), crosswise=st.integers(20, 60))
def test_long_images_with_any_boxes_become_lawful_samples(
    name: str, folder: Path, seed: int, boxes: Any, side: int, crosswise: int
) -> None:
    path = folder / 'long.png'
    path.write_bytes(encoded(random_image(side, crosswise, blur=0), 'PNG', compress_level=0))
    check_laws(augmented(name, path, boxes, seed), SCALE)


def damaged(data: bytes, how: str, where: float, more: bytes) -> bytes:
    """A file cut, overwritten, lengthened or with a hole, at ``where`` in [0, 1] of its length."""
    start = int(where * len(data))
    end = start + len(more)
    return {
        'cut': data[:start],
        'overwritten': data[:start] + more + data[end:],
        'inserted': data[:start] + more + data[start:],
        'zeroed': data[:start] + bytes(len(data) - start),
        'hole': data[:start] + bytes(len(data[start:end])) + data[end:],
        'appended': data + more,
    }[how]


DAMAGE = st.sampled_from(['cut', 'overwritten', 'inserted', 'zeroed', 'hole', 'appended'])


@pytest.mark.parametrize('name', CONFIGS)
@given(
    made=files(), how=DAMAGE, where=st.floats(0, 1), more=st.binary(min_size=1, max_size=64), seed=st.integers(0, 99)
)
def test_damaged_files_are_refused_by_name_or_become_lawful_samples(
    name: str, folder: Path, made: tuple[bytes, tuple[int, int]], how: str, where: float, more: bytes, seed: int
) -> None:
    """Damage that shows is one InputError; what does not show leaves a sample that is lawful all the same."""
    path = folder / 'damaged'
    path.write_bytes(damaged(made[0], how, where, more))
    try:
        packed = augmented(name, path, [(1, 1, 9, 9)], seed)
    except InputError as error:
        assert str(path) in str(error) and 'repair the file' in str(error)
        return
    check_laws(packed, SCALE)


@given(made=files(), where=st.floats(0, 1))
def test_a_file_cut_short_is_refused_or_shows_the_whole_image(
    made: tuple[bytes, tuple[int, int]], where: float
) -> None:
    """What is left of a file is never taken for an image that is not the one it was."""
    data = made[0]
    beginning = data[: int(where * len(data))]
    assume(len(beginning) < len(data))
    try:
        image = decode(beginning)
    except ImageError:
        return
    np.testing.assert_array_equal(image, decode(data))


@given(
    st.binary(max_size=400), st.sampled_from([b'', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'GIF89a', b'RIFF', b'BM'])
)
@example(b'\xd8\xff\xff\xff', b'\xff\xd8\xff')
def test_any_bytes_are_judged_without_a_crash(tail: bytes, head: bytes) -> None:
    data = head + tail
    reason = fault(data)
    assert reason is None or reason
    try:
        check(data)
        image = decode(data)
    except ImageError as error:
        assert str(error)
        return
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """OpenCV's threads are more trouble than use on images this small."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)

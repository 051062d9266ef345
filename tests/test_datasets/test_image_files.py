"""Every kind of file is decoded to the colours it means, and none that is cut or damaged is decoded at all."""

from __future__ import annotations

import re
import sys
import zlib

import cv2
import numpy as np
import pytest
from image_files import PLAIN, RGB, UPRIGHT_AGAIN, as_pillow, encoded, half_of_zeros, random_image, turned

from mmdet_iouquery.datasets import image_files
from mmdet_iouquery.datasets.image_files import ImageError, decode, fault, remark


@pytest.mark.parametrize('kind', PLAIN)
def test_colours_are_those_that_pillow_sees(kind: str) -> None:
    """Of an animation, the first frame. CMYK may differ by one: the two round their products differently."""
    image, expected = decode(PLAIN[kind]), as_pillow(PLAIN[kind])
    assert image.dtype == np.uint8 and image.shape == expected.shape
    difference = np.abs(image.astype(int) - expected).max()
    assert difference <= (1 if 'cmyk' in kind else 0)


@pytest.mark.parametrize('extension', ['.png', '.tiff'])
def test_16_bits_are_scaled_to_8(extension: str) -> None:
    """Not clipped: 0..65535 becomes 0..255, in a TIFF's colours rounded. Pillow, which clips, is no measure here."""
    deep = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    for samples in (deep, np.dstack([deep, deep[::-1], deep.T])):
        data = cv2.imencode(extension, samples)[1].tobytes()
        expected = samples >> 8 if samples.ndim == 3 else np.dstack([samples >> 8] * 3)
        assert np.abs(decode(data).astype(int) - expected).max() <= (extension == '.tiff' and samples.ndim == 3)


def test_floating_point_samples_are_refused() -> None:
    """What range they have is not agreed; OpenCV's versions make different images of them, or none."""
    for samples in (np.random.rand(8, 8).astype(np.float32), np.random.rand(8, 8, 3).astype(np.float32)):
        with pytest.raises(ImageError, match='samples are float32; only whole numbers'):
            decode(cv2.imencode('.tiff', samples)[1].tobytes())


def test_a_turned_image_is_set_upright() -> None:
    for orientation, back in UPRIGHT_AGAIN.items():
        expected = np.asarray(RGB.transpose(back))[..., ::-1]
        np.testing.assert_array_equal(decode(turned(RGB, orientation, 'PNG')), expected)


def test_the_annotated_size_decides_between_turned_and_stored() -> None:
    data = turned(RGB, 6, 'PNG')
    stored = np.asarray(RGB)[..., ::-1]
    np.testing.assert_array_equal(decode(data, (48, 32)), stored)
    np.testing.assert_array_equal(decode(data, (32.0, 48.0)), np.asarray(RGB.transpose(UPRIGHT_AGAIN[6]))[..., ::-1])
    with pytest.raises(ImageError, match=r'the image is 32 x 48 px, but its annotation says 48 x 33'):
        decode(data, (48, 33))
    with pytest.raises(ImageError, match=r'the image is 48 x 32 px, but its annotation says 32 x 48'):
        decode(PLAIN['jpeg'], (32, 48))


CHECKED = ('jpeg', 'progressive jpeg', 'jpeg with restart markers', 'png', 'animated png', 'gif', 'webp', 'tiff', 'bmp')


@pytest.mark.parametrize('kind', [*CHECKED, 'packed tiff', 'ppm', 'animated webp', 'animated gif'])
def test_a_file_cut_anywhere_is_refused(kind: str) -> None:
    data = PLAIN[kind]
    for length in {0, 1, 12, 100, len(data) // 3, len(data) // 2, len(data) - 30, len(data) - 2, len(data) - 1}:
        if (length == len(data) - 1 and 'gif' in kind) or (length >= len(data) - 2 and 'jpeg' in kind):
            continue  # the trailer alone is gone: the image is whole
        with pytest.raises(ImageError):
            decode(data[: max(length, 0)])


JPEGS = {
    'plain': dict(),
    'progressive': dict(progressive=True),
    'restart markers': dict(restart_marker_blocks=1),
    'progressive, restart markers': dict(progressive=True, restart_marker_rows=1),
    'colours in full': dict(subsampling=0, quality=95),
}


@pytest.mark.parametrize('blur', [0, 3])
@pytest.mark.parametrize('kind', JPEGS)
def test_a_jpeg_is_used_without_its_end_as_long_as_every_pixel_is_there(kind: str, blur: float) -> None:
    """Cut byte by byte: what is taken equals the whole image, and without the end marker alone it is taken."""
    data = encoded(random_image(50, 35, blur=blur), 'JPEG', **JPEGS[kind])
    whole = decode(data)
    assert remark(data, whole) is None and remark(data + b'more', whole) is None
    refused = 0
    for cut in [*range(1, 40), *range(40, len(data), 31)]:
        for tail in (b'', bytes(64)):  # as it is, or in space that was reserved for the whole
            try:
                image = decode(data[:-cut] + tail)
            except ImageError as error:
                refused += 1
                assert cut > 2, error  # noqa: PT017  that it fails is not certain
            else:
                np.testing.assert_array_equal(image, whole)
                assert remark(data[:-cut] + tail, image) == 'the JPEG lacks its end marker; every pixel is there'
    assert refused > 60


def test_a_scan_that_is_missing_is_missed_though_the_last_one_is_whole() -> None:
    """A progressive image looks well without its last scans."""
    data = encoded(random_image(50, 35), 'JPEG', progressive=True)
    scans = [match.start() for match in re.finditer(rb'\xff\xda', data)]
    assert len(scans) > 3
    for start in scans[1:]:
        with pytest.raises(ImageError, match='the JPEG has no end'):
            decode(data[:start])


@pytest.mark.parametrize('extension', ['.png', '.tiff'])
def test_16_bits_of_which_few_are_used_are_remarked_upon(extension: str) -> None:
    """A camera's 12 bits: nearly black, as a viewer shows them, and not stretched, as that would differ by image."""

    def stored(peak: int, kind: type = np.uint16) -> bytes:
        return cv2.imencode(extension, np.linspace(0, peak, 32 * 32).reshape(32, 32).astype(kind))[1].tobytes()

    dark = decode(stored(4095))
    assert dark.max() in (15, 16)
    text = remark(stored(4095), dark)
    assert text is not None and 'go up to 4095 of 65535 only' in text and '(here at most 16)' in text
    for data in (stored(65535), stored(9000), stored(0), stored(20, np.uint8)):
        assert remark(data, decode(data)) is None


def test_the_reserved_but_unfilled_half_of_a_jpeg_is_seen() -> None:
    """OpenCV and Pillow both make an image of it, whose lower half is grey."""
    data = half_of_zeros(encoded(random_image(640, 480, blur=1), 'JPEG', quality=90))
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)
    assert as_pillow(data).shape == (480, 640, 3)
    with pytest.raises(ImageError, match='cut short: the JPEG has no end'):
        decode(data)


def test_damage_at_a_marker_of_a_jpeg_is_seen() -> None:
    data = bytearray(encoded(random_image(64, 64, blur=1), 'JPEG'))
    data[len(data) - 200 : len(data) - 198] = b'\xff\x3a'
    with pytest.raises(ImageError, match=rf'JPEG data is broken at byte {len(data) - 200}'):
        decode(bytes(data))


def test_a_png_with_one_wrong_bit_is_seen_by_its_checksum() -> None:
    data = bytearray(PLAIN['png'])
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match='wrong checksum of the PNG chunk at byte 33'):
        decode(bytes(data))


def test_what_follows_the_end_or_is_mere_comment_is_free() -> None:
    """Cameras append second images and padding; a comment's checksum is no reason to lose an image."""
    for kind in ('jpeg', 'png', 'webp'):
        np.testing.assert_array_equal(decode(PLAIN[kind] + b'\0' * 600 + b'more'), decode(PLAIN[kind]))
    comment = b'tEXtwhat\0 ever'
    chunk = (len(comment) - 4).to_bytes(4, 'big') + comment + (zlib.crc32(comment) ^ 1).to_bytes(4, 'big')
    assert fault(PLAIN['png'][:33] + chunk + PLAIN['png'][33:]) is None


def test_an_end_marker_within_a_thumbnail_does_not_count() -> None:
    """The thumbnail in a JPEG's head has an end of its own."""
    small = PLAIN['one pixel']
    head = b'\xff\xe1' + (2 + len(small)).to_bytes(2, 'big') + small
    whole = PLAIN['jpeg'][:2] + head + PLAIN['jpeg'][2:]
    np.testing.assert_array_equal(decode(whole), decode(PLAIN['jpeg']))
    with pytest.raises(ImageError, match='the JPEG has no end'):
        decode(whole[: 2 + len(head)])


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'', 'the file is empty'),
        (b'<!DOCTYPE html><html>', r"cannot read it as an image; it begins with b'<!DOCTYPE html>"),
        (b'\xff\xd8\xff\xd9 and more', 'the JPEG ends before its image begins'),
        (b'\xff\xd8\xff\xe0\0\x04abcdefgh', 'no JPEG segment where one should begin, at byte 8'),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data)


def test_without_pillow_opencv_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'PIL', None)
    assert image_files.fault(PLAIN['tiff'][:-100]) is None
    assert decode(PLAIN['tiff']).shape == (32, 48, 3)


def test_an_image_too_large_for_opencv_is_refused() -> None:
    head = b'IHDR' + (1 << 20).to_bytes(4, 'big') + (1 << 20).to_bytes(4, 'big') + b'\x08\x02\0\0\0'
    chunks = [head, b'IDAT' + zlib.compress(b'\0'), b'IEND']
    body = b''.join((len(c) - 4).to_bytes(4, 'big') + c + zlib.crc32(c).to_bytes(4, 'big') for c in chunks)
    with pytest.raises(ImageError, match=f'OpenCV {cv2.__version__}'):
        decode(b'\x89PNG\r\n\x1a\n' + body)

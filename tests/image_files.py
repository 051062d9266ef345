"""Image files of every kind, made in memory."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIENTATION = 0x0112  # EXIF
UPRIGHT_AGAIN = {6: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}


def random_image(width: int = 48, height: int = 32, *, seed: int = 0, blur: float = 3) -> Image.Image:
    """Soft colours over the whole range, RGB."""
    noise = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), blur) if blur else noise
    low, high = soft.min(), soft.max()
    return Image.fromarray(np.uint8(255 * (soft - low) / max(high - low, 1e-6)))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The file that Pillow writes, e.g. 'JPEG'."""
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def as_pillow(data: bytes) -> NDArray[Any]:
    """A file as Pillow reads it, (H, W, 3) uint8, BGR."""
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert('RGB'))[..., ::-1]


def turned(image: Image.Image, orientation: int, form: str = 'JPEG', **options: Any) -> bytes:
    """A file whose EXIF data ask for it to be turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image, form, exif=exif, **options)


def half_of_zeros(data: bytes) -> bytes:
    """What an interrupted download leaves that had reserved the whole file."""
    half = len(data) // 2
    return data[:half] + bytes(len(data) - half)


RGB = random_image()
GREY = RGB.convert('L')
ALPHA = RGB.copy()
ALPHA.putalpha(GREY)
FLIPPED = RGB.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def with_marker_removed(data: bytes, marker: bytes) -> bytes:
    """A JPEG without one of its segments."""
    start = data.index(marker)
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], 'big') :]


ADOBE = encoded(RGB.convert('CMYK'), 'JPEG', quality=95)  # inks stored inverted, and marked so
PLAIN = {
    'jpeg': encoded(RGB, 'JPEG'),
    'progressive jpeg': encoded(RGB, 'JPEG', progressive=True),
    'jpeg with restart markers': encoded(RGB, 'JPEG', restart_marker_blocks=1),
    'grey jpeg': encoded(GREY, 'JPEG'),
    'cmyk jpeg, adobe': ADOBE,
    'cmyk jpeg, unmarked': with_marker_removed(ADOBE, b'\xff\xee'),
    'cmyk tiff': encoded(RGB.convert('CMYK'), 'TIFF'),
    'png': encoded(RGB, 'PNG'),
    'grey png': encoded(GREY, 'PNG'),
    'bilevel png': encoded(RGB.convert('1'), 'PNG'),
    'palette png': encoded(RGB.convert('P'), 'PNG'),
    'palette png, transparent': encoded(RGB.convert('P'), 'PNG', transparency=3),
    'png with alpha': encoded(ALPHA, 'PNG'),
    'grey png with alpha': encoded(ALPHA.convert('LA'), 'PNG'),
    'animated png': encoded(RGB, 'PNG', save_all=True, append_images=[FLIPPED]),
    'gif': encoded(RGB.convert('P'), 'GIF'),
    'animated gif': encoded(RGB.convert('P'), 'GIF', save_all=True, append_images=[FLIPPED.convert('P')]),
    'webp': encoded(RGB, 'WEBP', lossless=True),
    'webp with alpha': encoded(ALPHA, 'WEBP', lossless=True),
    'animated webp': encoded(RGB, 'WEBP', lossless=True, save_all=True, append_images=[FLIPPED]),
    'bmp': encoded(RGB, 'BMP'),
    'palette bmp': encoded(RGB.convert('P'), 'BMP'),
    'tiff': encoded(RGB, 'TIFF'),
    'packed tiff': encoded(RGB, 'TIFF', compression='tiff_lzw'),
    'ppm': encoded(RGB, 'PPM'),
    'one pixel': encoded(random_image(1, 1), 'JPEG'),
    'very wide': encoded(random_image(10000, 20), 'JPEG'),
    'very tall': encoded(random_image(20, 10000), 'PNG'),
}
"""Whole files, one of every kind."""

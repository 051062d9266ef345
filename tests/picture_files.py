"""Image files of every kind, made in memory."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF
UPRIGHT_AGAIN = {6: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}


def picture(width: int = 48, height: int = 32, *, seed: int = 0, blur: float = 3) -> Image.Image:
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


def as_pillow(data: bytes) -> np.ndarray:
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

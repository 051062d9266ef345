"""Images from the bytes of their files: whole ones decoded as mmcv does, all others refused with the reason.

A JPEG, PNG, WebP or GIF shows by its own structure whether it is whole (:mod:`iouquery_runtime.image_faults`); others,
and a GIF without its trailer, are decoded a second time by Pillow, which is strict. Damage of a JPEG that stays unseen
here comes to light in ``doctor data``.

A size is always (width, height) in px.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from iouquery_runtime import image_faults
from iouquery_runtime.image_faults import BMP, GIF, JPEG, PNG, RIFF, lacks_end

from ..errors import InputError

_DARK = 32  # of 256 levels


class ImageError(InputError):
    """An image that cannot be used: the message is the reason alone, without the file's name."""


def decode(data: bytes, size: tuple[float, float] | None = None) -> NDArray[Any]:
    """Decode an image as mmcv does, after having seen that the file is whole.

    Grey is repeated, CMYK and palettes are converted, transparency is dropped, 16 bits are scaled to 8, the first frame
    stands for an animation. The orientation that a camera has noted (EXIF) is applied, unless only the
    image as it is stored has the size expected.

    Args:
        data: the file's content.
        size: the size that the annotations name; None: any.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ImageError: the file is cut short, damaged or no image; its samples are not whole numbers; its size is another
            than expected.
    """
    check(data)
    data = image_faults.with_end(data)
    image = _decode(data, cv2.IMREAD_COLOR)
    if size is None or size_of(image) == size:
        return image
    stored = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if size_of(stored) == size:
        return stored
    size_px = ' x '.join(map(str, size_of(image)))
    raise ImageError(f'the image is {size_px} px, but its annotation says {size[0]} x {size[1]}')


def check(data: bytes) -> None:
    """Raise ImageError for bytes that are no whole image, or one whose samples are not whole numbers."""
    reason = fault(data)
    if reason:
        raise ImageError(reason)
    if data.startswith((PNG, JPEG, GIF, BMP, RIFF)):
        return
    kind = _decode(data, cv2.IMREAD_UNCHANGED).dtype
    if kind not in (np.uint8, np.uint16):  # no range is agreed on, and OpenCV's versions differ in what they make of it
        raise ImageError(f'its samples are {kind}; only whole numbers of 8 or 16 bits are read')


def size_of(image: NDArray[Any]) -> tuple[float, float]:
    """Width and height of an array (H, W, ...)."""
    return image.shape[1], image.shape[0]


def fault(data: bytes) -> str | None:
    """Why the bytes are no whole image; None: nothing is wrong with them, as far as can be told without decoding.

    Formats that do not tell are decoded by Pillow, where it is installed.
    """
    if image_faults.shows_faults(data):
        return image_faults.fault(data, lambda jpeg: _decode(jpeg, cv2.IMREAD_COLOR))
    return _strict_fault(data)


def remark(data: bytes, image: NDArray[Any]) -> str | None:
    """What should be known of a file that is used nevertheless; None: nothing.

    Args:
        data: its content, in which :func:`fault` found nothing.
        image: what it was decoded to, 8 bits.
    """
    if lacks_end(data):
        return 'the JPEG lacks its end marker; every pixel is there'
    if data.startswith(JPEG):
        return None
    deep = data[24:25] == b'\x10' if data.startswith(PNG) else not data.startswith((GIF, BMP, RIFF))
    if not deep or image.max() >= _DARK:
        return None
    samples = _decode(data, cv2.IMREAD_UNCHANGED)
    peak = int(samples.max())
    if samples.dtype != np.uint16 or not peak:
        return None
    return (
        f'its 16-bit samples go up to {peak} of 65535 only, so that it is nearly black; if it is one of 10, 12 or 14 '
        f'bits, save it again with all samples of the set times the same number (here at most {65535 // peak})'
    )


def _strict_fault(data: bytes) -> str | None:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return None
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):  # not a format of Pillow's, or too large for it
        return None
    except Exception as error:  # decoders meet broken bytes with almost any exception
        return f'the file is cut short or damaged: {error}'
    return None


def _decode(data: bytes, flag: int) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise ImageError(f'OpenCV {cv2.__version__} refuses it: {error.err or error}') from error
    if image is None:
        raise ImageError(f'OpenCV {cv2.__version__} cannot read it as an image; it begins with {data[:16]!r}')
    return image

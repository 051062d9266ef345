"""The size of an image file, without decoding it, and which of its two sizes labels are about.

A camera that is held upright notes a turn (EXIF); the image as it is shown then has other sides than as it is stored.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ...datasets.image_files import ImageError, decode
from .reading import Size, number

_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)


class ImageSizes(NamedTuple):
    """As it is shown, and as it is stored."""

    shown: Size
    stored: Size


def image_sizes(path: Path) -> ImageSizes:
    """The sizes of a file, from its head where Pillow knows the format.

    Raises:
        ImageError: it is missing, or no image that can be read; the message is the reason alone.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # nothing is decoded here
            with Image.open(path) as image:
                stored = image.size
                turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise ImageError('the file is missing') from error
        return _decoded(path)
    except Exception:  # broken heads bring almost any exception
        return _decoded(path)
    return ImageSizes(stored[::-1] if turned else stored, stored)


def _decoded(path: Path) -> ImageSizes:
    try:
        height, width = decode(path.read_bytes()).shape[:2]
    except (OSError, ImageError) as error:
        raise ImageError('no image that can be read') from error
    return ImageSizes((width, height), (width, height))


def agreed_size(path: Path, stated: tuple[object, object] | None) -> Size:
    """The size that a file's labels are about: the one stated, if the file has it, else as it is shown.

    The loader turns an image or leaves it as it is stored, so that it fits the size in the annotation file.

    Args:
        path: the image.
        stated: what the labels say; None, zeros and what is no number: nothing.

    Raises:
        ImageError: it cannot be read, or has neither way the size that is stated.
    """
    sizes = image_sizes(path)
    try:
        numbers = [number(value) for value in stated or ()]
    except ValueError:
        numbers = []
    if not numbers or not all(numbers):
        return sizes.shown
    for size in sizes:
        if [*size] == numbers:
            return size
    raise ImageError('the size in the labels is not that of the image')

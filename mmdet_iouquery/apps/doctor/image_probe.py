"""What one image file is: whether it can be used, how it is stored, what it looks like.

Pillow reads how it is stored. The difference hash is imagehash's with OpenCV's shrinking by area in place of Pillow's
Lanczos filter: 1 ms in place of 5 at 640 x 480 px, and a copy that is shrunk, brighter or saved anew differs in at most
2 of its bits in place of 4 (six images, four changes; :data:`~.duplicates.MAX_DISTANCE` is 3).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from iouquery_runtime.image_faults import lacks_end

from ...datasets.image_files import ImageError, decode, remark, size_of

_FLAT = 8  # grey levels; an image with less between its darkest and brightest part looks like any other such
_ORIENTATION = 0x0112  # EXIF


class ImageFacts(NamedTuple):
    """One file. What could not be found out is empty, 0 or None."""

    fault: str = ''
    """Why it cannot be used."""
    remark: str = ''
    """What the pipeline says of it in its log, and uses it."""
    no_end: bool = False
    """Whether that is a JPEG's missing end marker."""
    complaint: str = ''
    """What the decoder said of an image that it nevertheless made."""
    kind: str = ''
    """How the samples are stored where that is not plain 8-bit colour: 'grey', 'CMYK', '16 bits', 'palette', ..."""
    orientation: int = 1
    """EXIF's: 1 upright, 2 to 8 turned or mirrored."""
    as_stored: bool = False
    """Whether it is taken as it is stored, in spite of its orientation, as only so it has the annotated size."""
    digest: bytes = b''
    """Of the file's content, 16 bytes."""
    look: int | None = None
    """A 64-bit difference hash: images that look alike differ in few bits. None: too flat to tell."""


def probe(path: str, size: tuple[float, float]) -> ImageFacts:
    """Look at one file.

    Args:
        path: the file.
        size: width and height in px as its annotation has them.
    """
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except OSError as error:
        return ImageFacts(fault=f'it cannot be read: {error.strerror or error}')
    facts = ImageFacts(digest=hashlib.blake2b(data, digest_size=16).digest())
    with _native_stderr() as lines:
        try:
            image = decode(data, size)
        except ImageError as error:
            return facts._replace(fault=str(error))
        said_of_it = remark(data, image)
    kind, orientation, stored_size = _as_stored(data)
    return facts._replace(
        remark=said_of_it or '',
        no_end=lacks_end(data),
        complaint='' if said_of_it else _complaint(lines),
        kind=kind,
        orientation=orientation,
        as_stored=orientation >= 5 and size_of(image) == stored_size and stored_size[0] != stored_size[1],
        look=difference_hash(image),
    )


def difference_hash(image: NDArray[Any]) -> int | None:
    """64 bits of an image (H, W, 3) shrunk to 8 rows of 9: is a part brighter than its left neighbour? None: flat."""
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (9, 8), interpolation=cv2.INTER_AREA).astype(int)
    if np.ptp(small) < _FLAT:
        return None
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), 'big')


def _as_stored(data: bytes) -> tuple[str, int, tuple[float, float]]:
    """Kind of samples, EXIF orientation and stored size, by Pillow, from the file's head alone."""
    try:
        from PIL import Image

        with Image.open(BytesIO(data)) as image:
            orientation = int(image.getexif().get(_ORIENTATION, 1))
            return _kind(image, data), orientation if 1 <= orientation <= 8 else 1, image.size
    except Exception:  # without Pillow, or for a format it does not know, nothing is said
        return '', 1, (0, 0)


def _kind(image: object, data: bytes) -> str:
    mode, png = getattr(image, 'mode', ''), data.startswith(b'\x89PNG')
    if getattr(image, 'is_animated', False):
        return 'animated'
    if (png and data[24] == 16) or mode.startswith('I'):
        return '16 bits'
    names = {'1': 'grey', 'L': 'grey', 'P': 'palette', 'CMYK': 'CMYK', 'YCCK': 'CMYK', 'LAB': 'LAB'}
    return names.get(mode, 'transparent' if mode.endswith(('A', 'a')) else '')


@contextmanager
def _native_stderr() -> Iterator[list[str]]:
    """Collect what decoders, which are no Python, write to the standard error. Not for processes with threads."""
    lines: list[str] = []
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield lines
            finally:
                os.dup2(kept, 2)
                file.seek(0)
                lines += file.read().decode(errors='replace').splitlines()
    finally:
        os.close(kept)


def _complaint(lines: list[str]) -> str:
    """The line that tells of damage; decoders also grumble about colour profiles and the like."""
    return next((line.strip() for line in lines if 'corrupt' in line.lower() or 'premature' in line.lower()), '')

"""Pictures from the bytes of their files: whole ones decoded as mmcv does, all others refused with the reason.

Decoders make a picture of what is left of a cut or damaged file, often without a word, and the rest of it is grey. A
JPEG, PNG, WebP or GIF shows by its own structure whether it is whole, which costs far less than decoding; others, and a
GIF without its trailer, are decoded a second time by Pillow, which is strict. Damage within the compressed data of a
JPEG or WebP that hits no marker stays unseen here; that of a JPEG comes to light in ``doctor data``.

A size is always (width, height) in px.
"""

from __future__ import annotations

import re
import zlib
from io import BytesIO

import cv2
import numpy as np

from ..errors import InputError

_PNG, _JPEG, _GIF, _BMP, _RIFF = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff', b'GIF', b'BM', b'RIFF'
# Within compressed JPEG data FF is followed by 00 or a restart marker; anything else is a marker of its own.
_JPEG_MARKER = re.compile(rb'\xff([^\x00\xff\xd0-\xd7])')
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
# Tables, comments and application data are all that may stand between a picture's scans.
_JPEG_BETWEEN_SCANS = frozenset((0xC4, _JPEG_SCAN, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE))


class ImageError(InputError):
    """A picture that cannot be used: the message is the reason alone, without the file's name."""


def decode(data: bytes, size: tuple[float, float] | None = None) -> np.ndarray:
    """Decode a picture as mmcv does, after having seen that the file is whole.

    Grey is repeated, CMYK and palettes are converted, transparency is dropped, 16 bits are scaled to 8, the first frame
    stands for an animation. The orientation that a camera has noted (EXIF) is applied, unless only the
    picture as it is stored has the size expected.

    Args:
        data: The file's content.
        size: The size that the annotations name; None: any.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ImageError: The file is cut short, damaged or no picture; its samples are not whole numbers; its size is another
            than expected.
    """
    check(data)
    image = _decode(data, cv2.IMREAD_COLOR)
    if size is None or size_of(image) == size:
        return image
    stored = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if size_of(stored) == size:
        return stored
    found = ' x '.join(map(str, size_of(image)))
    raise ImageError(f'the picture is {found} px, but its annotation says {size[0]} x {size[1]}')


def check(data: bytes) -> None:
    """Raise ImageError for bytes that are no whole picture, or one whose samples are not whole numbers."""
    reason = fault(data)
    if reason:
        raise ImageError(reason)
    if data.startswith((_PNG, _JPEG, _GIF, _BMP, _RIFF)):
        return
    kind = _decode(data, cv2.IMREAD_UNCHANGED).dtype
    if kind not in (np.uint8, np.uint16):  # no range is agreed on, and OpenCV's versions differ in what they make of it
        raise ImageError(f'its samples are {kind}; only whole numbers of 8 or 16 bits are read')


def size_of(image: np.ndarray) -> tuple[float, float]:
    """Width and height of an array (H, W, ...)."""
    return image.shape[1], image.shape[0]


def fault(data: bytes) -> str | None:
    """Why the bytes are no whole picture; None: nothing is wrong with them, as far as can be told without decoding.

    Formats that do not tell are decoded by Pillow, where it is installed.
    """
    if not data:
        return 'the file is empty'
    if data.startswith(_JPEG):
        return _jpeg_fault(data)
    if data.startswith(_PNG):
        return _png_fault(data)
    if data.startswith(_RIFF) and data[8:12] == b'WEBP':
        missing = int.from_bytes(data[4:8], 'little') + 8 - len(data)
        return f'the file is cut short: {missing} bytes are missing' if missing > 0 else None
    if data.startswith(_GIF) and data.rstrip(b'\0').endswith(b';'):
        return None
    return _strict_fault(data)


def _jpeg_fault(data: bytes) -> str | None:
    """Walk from marker to marker, up to the end of the picture; what follows it (a second picture, padding) is free."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return f'the file is damaged: no JPEG segment where one should begin, at byte {position}'
        marker = data[position + 1]
        if marker == 0xFF:  # a filling byte
            position += 1
            continue
        if marker == _JPEG_END:
            return 'the file is damaged: the JPEG ends before its picture begins'
        position += 2 + int.from_bytes(data[position + 2 : position + 4], 'big')
        if marker != _JPEG_SCAN:
            continue
        found = _JPEG_MARKER.search(data, position)
        if not found:
            break
        position = found.start()
        following = found[1][0]
        if following == _JPEG_END:
            return None
        if following not in _JPEG_BETWEEN_SCANS:
            return f'the file is damaged: JPEG data is broken at byte {position}'
    return 'the file is cut short: the JPEG has no end'


def _png_fault(data: bytes) -> str | None:
    """Walk from chunk to chunk, up to the last; the checksums of those that make the picture must be right."""
    position = len(_PNG)
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], 'big')
        name = data[position + 4 : position + 8]
        if end > len(data):
            break
        # a capital first letter: needed for the picture
        if name[:1].isupper() and zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(
            data[end - 4 : end], 'big'
        ):
            return f'the file is damaged: wrong checksum of the PNG chunk at byte {position}'
        if name == b'IEND':
            return None
        position = end
    return 'the file is cut short: the PNG has no end'


def _strict_fault(data: bytes) -> str | None:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return None
    try:
        with Image.open(BytesIO(data)) as picture:
            picture.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):  # not a format of Pillow's, or too large for it
        return None
    except Exception as error:  # decoders meet broken bytes with almost any exception
        return f'the file is cut short or damaged: {error}'
    return None


def _decode(data: bytes, flag: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise ImageError(f'OpenCV {cv2.__version__} refuses it: {error.err or error}') from error
    if image is None:
        raise ImageError(f'OpenCV {cv2.__version__} cannot read it as a picture; it begins with {data[:16]!r}')
    return image

"""From images of any kind to pixels as the detector was tested with, without OpenCV.

Files are decoded to the same bytes as in mmdet's pipelines with this project's ``LoadImageFromFile``, which uses
OpenCV: grey is repeated, palettes are converted, transparency is dropped (a TIFF's is multiplied in, as libtiff does),
16 bits are cut to 8, CMYK is converted by OpenCV's formula, EXIF orientation is applied, and cut or damaged files are
refused.

Not the same to the bit are, by 1 of 255 at most, TIFF, JPEG 2000 and PPM of 16 bits in colour, of which Pillow hands
out 8 that it rounds otherwise, and uncompressed YCbCr TIFF, which it converts by another formula. A WebP that asks to
be turned is turned, as by OpenCV 5 and not by 4.12. A PPM whose brightest value is neither 255 nor 65535 is brightened
here, and not by OpenCV.

Resizing is the same to the bit, whether the test pipeline has ``backend='pillow'``, as this project's have, or mmdet's
default, OpenCV's bilinear interpolation.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import image_faults
from .errors import InputError, reason
from .metadata import Metadata, Resize

Source = Union[str, 'os.PathLike[str]', bytes, Image.Image, NDArray[Any]]
"""An image: the path of a file, a file's content, a PIL image, or an array (H, W, 3) uint8."""

_ORIENTATION = 0x0112  # EXIF
_EXTRA_SAMPLES = 338  # TIFF: what a fourth sample means; 0: it does not say
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(source: Source, name: str, bgr: bool = False) -> NDArray[Any]:
    """Pixels (H, W, 3) uint8, RGB, upright.

    Args:
        source: what to read.
        name: of the image in messages; a path stands for itself.
        bgr: of an array: its channels are blue, green, red.

    Raises:
        InputError: a file that is missing, cut short, damaged or no image; samples that are not whole numbers of up to
            16 bits; an array of another shape or type.
    """
    if isinstance(source, (str, os.PathLike)):
        return _of_file(_content(Path(source)), str(source))
    if isinstance(source, bytes):
        return _of_file(source, name)
    if isinstance(source, Image.Image):
        return _decoded(source, name)
    if not isinstance(source, np.ndarray):
        raise InputError(
            f'{name} is a {type(source).__module__}.{type(source).__qualname__}; give a path, the bytes of a file, a '
            'PIL image or a NumPy array (H, W, 3) of uint8'
        )
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
        raise InputError(
            f'{name} is an array of shape {source.shape} and type {source.dtype}; it must be (H, W, 3), uint8, RGB (or '
            'BGR with bgr=True), such as array.transpose(1, 2, 0) of one with channels first'
        )
    return source[..., ::-1] if bgr else source


def resized(image: NDArray[Any], height: int, width: int, how: Resize) -> NDArray[Any]:
    """An image (H, W, 3) uint8 stretched to ``height`` and ``width`` px."""
    if not how.antialias:
        return _resized_as_by_opencv(image, height, width)
    resample = Image.Resampling[how.interpolation.upper()]
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), resample))


def network_inputs(
    images: list[NDArray[Any]], sizes: list[tuple[int, int]], metadata: Metadata
) -> dict[str, NDArray[Any]]:
    """What the graph takes, by name.

    Args:
        images: resized to one size, RGB.
        sizes: width and height in px of each before that.
        metadata: of the graph.
    """
    batch = np.stack(images)
    if metadata.input == 'float32-nchw':
        batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32)
    if metadata.output == 'raw':
        return {'images': batch}
    return {'images': batch, 'sizes': np.asarray(sizes, dtype=np.float32)}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f'{path} cannot be read: {error.strerror or error}; correct the path, or leave it out'
        ) from error


def _of_file(data: bytes, name: str) -> NDArray[Any]:
    fault = image_faults.fault(data, _decoded_jpeg) if image_faults.shows_faults(data) else None
    if fault:
        raise InputError(f'{name}: {fault}; repair the file, or leave it out')
    return _decoded(BytesIO(image_faults.with_end(data)), name)


def _decoded_jpeg(data: bytes) -> NDArray[Any]:
    try:
        with Image.open(BytesIO(data)) as image:
            return np.asarray(image)
    except Exception as error:  # decoders meet broken bytes with almost any exception
        raise ValueError from error


def _decoded(source: Image.Image | BytesIO, name: str) -> NDArray[Any]:
    """The pixels of a PIL image, or of a file's content."""
    try:
        image = source if isinstance(source, Image.Image) else Image.open(source)
        image.load()
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f'{name} is not an image that Pillow {Image.__version__} can read; repair the file, or leave it out'
        ) from error
    except Exception as error:  # almost any, as above
        raise InputError(f'{name} cannot be decoded: {reason(error)}; repair the file, or leave it out') from error
    return np.asarray(_upright(_in_rgb(image, name), image))


def _in_rgb(image: Image.Image, name: str) -> Image.Image:
    """The colours that OpenCV makes of a file, of 8 bits."""
    mode, form = image.mode, image.format
    deep = mode.startswith('I;16') or (mode == 'I' and form in ('PNG', 'PPM'))  # so older versions of Pillow say it
    if mode in ('F', 'I', 'LAB', 'HSV') and not deep:
        kind = {'F': 'floating-point numbers', 'I': '32 bits'}.get(mode, f'colours in {mode}')
        raise InputError(f'{name} has samples of {kind}; save it in RGB or grey, of 8 or 16 bits')
    if deep:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif mode == 'CMYK' and form in ('JPEG', 'MPO'):
        return _cmyk_jpeg_in_rgb(image)
    elif mode == 'RGBA' and form == 'TIFF' and image.tag_v2.get(_EXTRA_SAMPLES) != (0,):
        image = Image.fromarray(np.ascontiguousarray(np.asarray(image.convert('RGBa'))[..., :3]))
    return image if image.mode == 'RGB' else image.convert('RGB')


def _cmyk_jpeg_in_rgb(image: Image.Image) -> Image.Image:
    """Such files store 255 less the ink, which Pillow undoes; the conversion is that of OpenCV's JPEG reader."""
    stored = 255 - np.asarray(image).astype(np.int32)
    black = stored[..., 3:]
    return Image.fromarray((black - ((255 - stored[..., :3]) * black >> 8)).astype(np.uint8))


def _upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """Turn ``pixels`` as the EXIF data of ``image`` ask for. Those of a TIFF Pillow follows itself."""
    try:
        exif = Image.Exif()
        exif.load(image.info.get('exif', b''))  # not getexif(), which goes by XMP as well
        turn = _TURNS.get(exif.get(_ORIENTATION, 1))
    except Exception:  # EXIF data that are damaged say nothing, whatever the exception
        return pixels
    return pixels if turn is None else pixels.transpose(turn)


def _resized_as_by_opencv(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Bilinear, in the whole numbers that OpenCV's ``INTER_LINEAR`` computes with, of 11 bits for a share.

    To a half of both sides it takes means of 2 x 2 pixels.
    """
    pixels = image.astype(np.int32)
    if image.shape[:2] == (2 * height, 2 * width):
        return (pixels.reshape(height, 2, width, 2, 3).sum((1, 3)) + 2 >> 2).astype(np.uint8)
    left, share = _sampling(image.shape[1], width)
    share[(left < 0) | (left >= image.shape[1] - 1)] = 0
    columns = _mixed(pixels, left, share[:, None], axis=1, shift=0)
    top, share = _sampling(image.shape[0], height)
    return (_mixed(columns >> 4, top, share[:, None, None], axis=0, shift=16) + 2 >> 2).astype(np.uint8)


def _sampling(length: int, target: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each of ``target`` pixels, which of ``length`` it begins with, and the share of the next one, of 2048."""
    position = ((np.arange(target) + 0.5) * (1 / (target / length)) - 0.5).astype(np.float32)
    first = np.floor(position)
    return first.astype(np.int64), np.rint((position - first) * 2048).astype(np.int32)


def _mixed(pixels: NDArray[Any], first: NDArray[Any], share: NDArray[Any], axis: int, shift: int) -> NDArray[Any]:
    """Neighbours along an axis by their shares, each product without its lowest bits; the edges go on for ever."""
    first, second = (np.clip(index, 0, pixels.shape[axis] - 1) for index in (first, first + 1))
    kept = (2048 - share) * pixels.take(first, axis) >> shift
    return kept + (share * pixels.take(second, axis) >> shift)

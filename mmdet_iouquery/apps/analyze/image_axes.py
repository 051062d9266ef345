"""Drawing on an image: axes in px of it, boxes, and the columns that boxes have in a chart's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .trace import QueryTrace

Numbers = NDArray[Any]
ImageOrArray = Union[Image.Image, NDArray[np.uint8]]
Row = dict[str, Any]

SMALL_FONT = 9
_CORNERS = ('x1', 'y1', 'x2', 'y2')


def rgb_of(image: ImageOrArray, trace: QueryTrace) -> NDArray[np.uint8]:
    """The image as (H, W, 3) uint8.

    Raises:
        InputError: it is no RGB image, or not of the trace's size.
    """
    pixels = np.asarray(image.convert('RGB') if isinstance(image, Image.Image) else image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise InputError(f'an image must be (H, W, 3) uint8 RGB, got {pixels.shape} {pixels.dtype}')
    if pixels.shape[1::-1] != tuple(trace.size_px):
        size, traced = ('{} x {}'.format(*pair) for pair in (pixels.shape[1::-1], trace.size_px))
        raise InputError(
            f'the image is {size} px large, but the queries are those of one of {traced} px; give the image that was '
            'traced'
        )
    return pixels


def show_image(axes: Axes, pixels: NDArray[np.uint8]) -> None:
    """The image in light grey, so that colours stand out, in px from its upper left corner."""
    height, width = pixels.shape[:2]
    grey = 125 + 0.5 * (pixels @ np.array([0.299, 0.587, 0.114]))
    axes.imshow(grey, cmap='gray', vmin=0, vmax=255, extent=(0, width, height, 0))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect='equal')
    axes.spines[:].set_color('0.6')


def outline(axes: Axes, box_px: Numbers, **style: Any) -> None:
    """A box x1, y1, x2, y2 in px, with a thin white rim, so that it is seen on any image."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    settings = {'linewidth': 1.6, 'zorder': 3, **style}
    x1, y1, x2, y2 = box_px
    rim = withStroke(linewidth=settings['linewidth'] + 1.4, foreground='white', alpha=0.8)
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, path_effects=[rim], **settings))


def centres_of(boxes_px: Numbers) -> Numbers:
    """(..., 4) corners to (..., 2), x and y."""
    return 0.5 * (boxes_px[..., :2] + boxes_px[..., 2:])


def corners(box_px: Numbers, suffix: str = '') -> Row:
    """Columns of a box."""
    return {f'{key}{suffix}': float(value) for key, value in zip(_CORNERS, box_px)}


def level_names(trace: QueryTrace) -> list[str]:
    """The memory's levels, with the distance of their tokens in px of the image."""
    names = []
    for level, (height, width) in enumerate(trace.spatial_shapes):
        x, y = (f'{length / count:.3g}' for length, count in zip(trace.input_px, (width, height)))
        names.append(f'level {level} (a token every {x if x == y else f"{x} x {y}"} px)')
    return names

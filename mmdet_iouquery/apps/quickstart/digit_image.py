"""One image of the digits set: handwriting as strokes of colour on a photograph, and the box of each stroke.

Shape shorthand: H and W the image's height and width, h and w those of a digit, all in px.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

INK_ALPHA = 0.3  # a pixel is visible ink from this opacity on; boxes are tight around such pixels
_HEIGHT_AT_256 = (24.0, 96.0)  # px of a digit's ink, drawn log-uniformly
_STRETCH = (0.85, 1.2)  # width over height, relative to the scan's own
_STROKE = (0.33, 0.66)  # upscaled grey values at which a stroke begins to show and is opaque
_OPACITY = (0.85, 1.0)
_PLACES = 40  # attempts at a free place before a digit is dropped
_COLOURS = 48  # colours drawn for each digit
_SAMPLES = 16  # rows and columns of pixels behind a digit that are looked at
_MIN_CONTRAST = 70.0  # of 255 in luma, against nine in ten of the pixels behind the digit
_LUMA = np.array([0.299, 0.587, 0.114])


class Digit(NamedTuple):
    """A digit as it was pasted: ``bbox`` is x, y, w, h in px, ``scan`` the index of its scan."""

    scan: int
    bbox: tuple[int, int, int, int]


def compose_image(
    rng: np.random.Generator, background: NDArray[Any], scans: NDArray[Any], wanted: list[int], max_overlap: float
) -> tuple[NDArray[Any], list[Digit]]:
    """Paste digits on a background, each where it covers at most ``max_overlap`` of another and can be read.

    Args:
        rng: source of sizes, places and colours.
        background: (H, W, 3) uint8 RGB.
        scans: (S, 8, 8) grey values in [0, 1].
        wanted: indices of the scans to paste, in this order. One that finds no place is dropped, never the first.
        max_overlap: largest share of the smaller of two boxes that may lie in the other.

    Returns:
        The image, (H, W, 3) uint8, and the digits that are in it.
    """
    canvas = background.astype(np.float64)
    digits: list[Digit] = []
    for scan in wanted:
        alpha = stroke_alpha(scans[scan], *_random_size(rng, canvas.shape[0]))
        placed = _find_place(rng, canvas, alpha.shape, [digit.bbox for digit in digits], max_overlap)
        if placed is None:
            continue
        bbox, colour = placed
        _paste(canvas, alpha * rng.uniform(*_OPACITY), bbox, colour)
        digits.append(Digit(scan, bbox))
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), digits


def stroke_alpha(scan: NDArray[Any], height: float, stretch: float) -> NDArray[Any]:
    """A scan as the opacity of a smooth stroke, cut to the pixels that show.

    The scan gets an empty rim first, so that strokes at its edge end round instead of cut off.

    Args:
        scan: (8, 8) grey values in [0, 1].
        height: height in px that the 8 rows take.
        stretch: factor on the width.

    Returns:
        (h, w) in [0, 1]; each edge row and column holds a value above :data:`INK_ALPHA`.
    """
    rim = np.pad(scan, 1).astype(np.float32)
    rows = max(10, round(height * 10 / 8))
    columns = max(10, round(height * stretch * 10 / 8))
    grey = np.asarray(Image.fromarray(rim).resize((columns, rows), Image.Resampling.BICUBIC), dtype=np.float64)
    ramp = np.clip((grey - _STROKE[0]) / (_STROKE[1] - _STROKE[0]), 0, 1)
    alpha = ramp * ramp * (3 - 2 * ramp)
    ink = alpha > INK_ALPHA
    ys, xs = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return np.where(ink, alpha, 0)[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Area common to two boxes x, y, w, h over that of the smaller, in [0, 1]; never below their IoU."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2] * a[3], b[2] * b[3])


def _random_size(rng: np.random.Generator, image_height: int) -> tuple[float, float]:
    low, high = np.log(_HEIGHT_AT_256)
    return float(np.exp(rng.uniform(low, high))) * image_height / 256, float(rng.uniform(*_STRETCH))


def _find_place(
    rng: np.random.Generator,
    canvas: NDArray[Any],
    size: tuple[int, ...],
    taken: list[tuple[int, int, int, int]],
    max_overlap: float,
) -> tuple[tuple[int, int, int, int], NDArray[Any]] | None:
    """A free place and a colour readable there, or None where neither was found.

    The first digit of an image (nothing taken) takes the best contrast seen, so that no image stays empty.
    """
    height, width = size
    best: tuple[float, tuple[int, int, int, int], NDArray[Any]] | None = None
    for _ in range(_PLACES):
        y = int(rng.integers(canvas.shape[0] - height + 1))
        x = int(rng.integers(canvas.shape[1] - width + 1))
        bbox = (x, y, width, height)
        if any(overlap(bbox, other) > max_overlap for other in taken):
            continue
        colour, contrast = readable_colour(rng, canvas[y : y + height, x : x + width])
        if contrast >= _MIN_CONTRAST:
            return bbox, colour
        if best is None or contrast > best[0]:
            best = (contrast, bbox, colour)
    return (best[1], best[2]) if best is not None and not taken else None


def readable_colour(rng: np.random.Generator, behind: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """A random RGB colour (3,) that differs in luma from what lies behind, and by how much (of 255).

    The contrast is the tenth percentile over the pixels: nine in ten differ by more. Among the colours drawn, the first
    that is enough wins; if none is, the one of most contrast.
    """
    colours = rng.uniform(0, 255, size=(_COLOURS, 3))
    rows, columns = (max(1, length // _SAMPLES) for length in behind.shape[:2])
    luma = behind[::rows, ::columns].reshape(-1, 3) @ _LUMA
    differences = np.abs((colours @ _LUMA)[:, None] - luma[None])
    contrast = np.partition(differences, len(luma) // 10, axis=1)[:, len(luma) // 10]
    enough = np.flatnonzero(contrast >= _MIN_CONTRAST)
    chosen = int(enough[0]) if enough.size else int(contrast.argmax())
    return colours[chosen], float(contrast[chosen])


def _paste(canvas: NDArray[Any], alpha: NDArray[Any], bbox: tuple[int, int, int, int], colour: NDArray[Any]) -> None:
    """Blend the colour into ``canvas`` (H, W, 3) in place, inside ``bbox``."""
    x, y, width, height = bbox
    area = canvas[y : y + height, x : x + width]
    area += alpha[..., None] * (colour - area)

"""Detections beside ground truth as images, for reports and for looking at what a model does.

Boxes are x1, y1, x2, y2 in px of the image as it came, the edges of pixels: a box of x1=0, x2=10 covers the columns 0
to 9. Small images are enlarged and large ones reduced before drawing, and :class:`View` maps the one to the other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ...errors import InputError

# Okabe and Ito's colours for all kinds of colour vision, without their black, which is lost on dark images.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
ImageLike = Union[Image.Image, NDArray[Any], str, 'os.PathLike[str]']

_SMALL_SIDE = 512  # px: smaller images are enlarged by the least whole factor that reaches it
_LARGE_SIDE = 1280  # px: larger images are reduced to it
_LARGEST_FACTOR = 8
_FONT_SIZE = 15
_LINE = 2
_GAP = 8
_PAPER = (255, 255, 255)
_INK = (20, 20, 20)


class Box(NamedTuple):
    """A box to draw: x1, y1, x2, y2 in px, the label (index into the class names), a score in [0, 1] or None."""

    xyxy_px: tuple[float, float, float, float]
    label: int
    score: float | None = None


@dataclass(frozen=True)
class View:
    """Where and how large an image stands on the canvas.

    Attributes:
        left: column of the image's left edge on the canvas.
        top: row of its upper edge.
        scale: canvas px for one px of the image.
        width: width on the canvas in px.
        height: height on the canvas in px.
    """

    left: int
    top: int
    scale: float
    width: int
    height: int

    def to_canvas(self, xyxy_px: Sequence[float]) -> tuple[int, int, int, int]:
        """First and last column and row (x1, y1, x2, y2, all inside) that a box's outline takes on the canvas.

        Boxes are clipped to the image, and each is at least one px wide and high.
        """
        x1, x2 = self._span(xyxy_px[0], xyxy_px[2], self.width)
        y1, y2 = self._span(xyxy_px[1], xyxy_px[3], self.height)
        return self.left + x1, self.top + y1, self.left + x2, self.top + y2

    def _span(self, low: float, high: float, length: int) -> tuple[int, int]:
        first = min(max(round(low * self.scale), 0), length - 1)
        last = min(max(round(high * self.scale) - 1, first), length - 1)
        return first, last


def colour_of(label: int) -> tuple[int, int, int]:
    """RGB of a class; the palette repeats after seven."""
    return PALETTE[label % len(PALETTE)]


def boxes_of(instances: Any, score_thr: float = 0.0) -> list[Box]:
    """Boxes of an ``InstanceData`` (``bboxes`` (N, 4) xyxy in px, ``labels``, ``scores`` if any) above a score."""
    scores = instances.scores.tolist() if 'scores' in instances else [None] * len(instances.labels)
    rows = zip(instances.bboxes.tolist(), instances.labels.tolist(), scores)
    return [Box(tuple(box), label, score) for box, label, score in rows if score is None or score >= score_thr]


def draw_side_by_side(
    image: ImageLike,
    gt: Sequence[Box],
    detections: Sequence[Box],
    classes: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
) -> Image.Image:
    """Draw ground truth on the left and detections, with scores, on the right.

    Args:
        image: a PIL image, (H, W, 3) uint8 RGB, or the path of a file.
        gt: boxes of the ground truth.
        detections: boxes found; one of higher score is drawn over one of lower.
        classes: names by label.
        path: file to write; its folder is made if need be.
        title: header; the file's name where ``image`` is a path and nothing is given.

    Returns:
        The drawing, RGB.

    Raises:
        InputError: the image can't be read, or a label has no name.
    """
    opened, name = _open(image)
    left, right = side_by_side_views(*opened.size)
    canvas = Image.new('RGB', (right.left + right.width + _GAP, left.top + left.height + _GAP), _PAPER)
    pen = ImageDraw.Draw(canvas)
    font = _font()
    pen.text((left.left, _GAP // 2), _shortened(title or name, canvas.width - 2 * _GAP, font), fill=_INK, font=font)
    by_score = sorted(detections, key=lambda box: box.score or 0.0)
    for view, boxes, head in ((left, gt, 'ground truth'), (right, by_score, 'detections')):
        text = f'{head} ({len(boxes)})'
        pen.text((view.left, _GAP // 2 + _line_height(font)), text, fill=_INK, font=font)
        canvas.paste(opened.resize((view.width, view.height), _filter(view.scale)), (view.left, view.top))
        _draw_boxes(pen, view, boxes, classes, font)
    if path is not None:
        _save(canvas, Path(path))
    return canvas


def side_by_side_views(width: int, height: int) -> tuple[View, View]:
    """Views of the left and the right image of :func:`draw_side_by_side`, for an image of that size in px."""
    scale = _scale(max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    top = _GAP + 2 * _line_height(_font())
    left = View(_GAP, top, scale, *size)
    return left, View(2 * _GAP + left.width, top, scale, *size)


def contact_sheet(
    images: Sequence[ImageLike], columns: int, path: str | os.PathLike[str] | None = None, *, gap: int = _GAP
) -> Image.Image:
    """Lay images on one sheet, row by row, each in the middle of a cell as large as the largest image.

    Args:
        images: images or paths of them; at least one.
        columns: images in a row; at least one.
        path: file to write.
        gap: px between cells and around them.

    Returns:
        The sheet, RGB.

    Raises:
        InputError: no images, no columns, or an image that can't be read.
    """
    if not images or columns < 1:
        raise InputError(f'contact_sheet: {len(images)} images in {columns} columns; give at least one of each')
    opened = [_open(image)[0] for image in images]
    width, height = (max(image.size[axis] for image in opened) for axis in (0, 1))
    columns = min(columns, len(opened))
    rows = math.ceil(len(opened) / columns)
    sheet = Image.new('RGB', (gap + columns * (width + gap), gap + rows * (height + gap)), _PAPER)
    for index, image in enumerate(opened):
        x = gap + index % columns * (width + gap) + (width - image.width) // 2
        y = gap + index // columns * (height + gap) + (height - image.height) // 2
        sheet.paste(image, (x, y))
    if path is not None:
        _save(sheet, Path(path))
    return sheet


def _open(image: ImageLike) -> tuple[Image.Image, str]:
    """The image as RGB, and the name of its file or an empty string."""
    if isinstance(image, Image.Image):
        return image.convert('RGB'), ''
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(f'an image array must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}')
        return Image.fromarray(image), ''
    try:
        with Image.open(image) as opened:
            return opened.convert('RGB'), os.path.basename(image)
    except OSError as error:
        raise InputError(
            f'the image {os.fspath(image)} cannot be read: {error}; repair the file, or name another'
        ) from error


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _scale(longer_side: int) -> float:
    if longer_side > _LARGE_SIDE:
        return _LARGE_SIDE / longer_side
    return float(min(_LARGEST_FACTOR, math.ceil(_SMALL_SIDE / longer_side)))


def _filter(scale: float) -> Image.Resampling:
    return Image.Resampling.BICUBIC if scale >= 1 else Image.Resampling.LANCZOS


def _font() -> Any:
    """Pillow's own font, so that drawings are equal on all machines; of fixed size before Pillow 10.1."""
    try:
        return ImageFont.load_default(_FONT_SIZE)
    except TypeError:
        return ImageFont.load_default()


def _line_height(font: Any) -> int:
    return math.ceil(font.getbbox('Ag')[3]) + 4


def _shortened(text: str, width: int, font: Any) -> str:
    """The text, or as much of it from the end as fits into ``width`` px behind an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength('...' + text) > width:
        text = text[1:]
    return '...' + text


def _draw_boxes(pen: ImageDraw.ImageDraw, view: View, boxes: Sequence[Box], classes: Sequence[str], font: Any) -> None:
    """All outlines first, then all labels, so that no line crosses a label."""
    for box in boxes:
        if not 0 <= box.label < len(classes):
            raise InputError(
                f'a box has label {box.label}, but there are {len(classes)} class names, from 0 on; give a name for '
                'each class'
            )
        x1, y1, x2, y2 = view.to_canvas(box.xyxy_px)
        colour = colour_of(box.label)
        pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_readable_on(colour))
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=_LINE)
    taken: list[tuple[int, int, int, int]] = []
    for box in reversed(boxes):
        name = (
            classes[box.label] if box.score is None else f'{classes[box.label]}  {box.score:.2f}'
        )  # the font's space is narrow
        name = _shortened(name, view.width - 6, font)
        label_box = _label_place(view, view.to_canvas(box.xyxy_px), _text_size(name, font), taken)
        taken.append(label_box)
        pen.rectangle(label_box, fill=colour_of(box.label))
        pen.text((label_box[0] + 3, label_box[1] + 1), name, fill=_readable_on(colour_of(box.label)), font=font)


def _text_size(text: str, font: Any) -> tuple[int, int]:
    """Width and height in px of a label with its margins."""
    return math.ceil(font.getlength(text)) + 6, _line_height(font)


def _label_place(
    view: View, box: tuple[int, int, int, int], size: tuple[int, int], taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
    """A rectangle for a label: over the box, else under it, else in it; inside the image and off other labels."""
    x1, y1, x2, y2 = box
    width, height = size
    right, bottom = view.left + view.width - 1, view.top + view.height - 1
    over, under = y1 - height - 1, y2 + 2
    candidates = []
    for x, y in ((x1 - 1, over), (x1 - 1, under), (x2 - width + 2, over), (x1, y1), (x1, y2 - height)):
        left = max(view.left, min(x, right - width + 1))
        top = max(view.top, min(y, bottom - height + 1))
        candidates.append((left, top, left + width - 1, top + height - 1))
    return min(candidates, key=lambda candidate: sum(_common_area(candidate, other) for other in taken))


def _common_area(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    return max(width, 0) * max(height, 0)


def _readable_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever differs more in luma."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 127 else (255, 255, 255)

"""What was detected in an image, and the forms that other programs take it in."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .errors import InputError, optional
from .files import whole_file
from .postprocess import Detections
from .preprocess import Source, read_image

DRAWN_BY = 'iouquery_runtime'
"""What a figure says in its EXIF data of the program that made it."""
_SOFTWARE = 0x0131  # EXIF
FIGURES = {'.jpg': 'JPEG', '.jpeg': 'JPEG', '.png': 'PNG', '.webp': 'WEBP'}
"""What a figure can be written as, by suffix."""


@dataclass(frozen=True, eq=False)
class Result:
    """The detections of one image, best first."""

    boxes: NDArray[Any]
    """(K, 4) float32, corners x1, y1, x2, y2 in px of the original image."""
    scores: NDArray[Any]
    """(K,), in [0, 1]: float32, or float64 where they are calibrated."""
    labels: NDArray[Any]
    """(K,) int64, the classes' numbers from 0."""
    names: tuple[str, ...]
    """(K,), of the classes."""
    width: int
    """Of the original image in px; 0 where it could not be read."""
    height: int
    path: str | None = None
    """Of the image's file; None: it did not come from one."""
    error: str | None = None
    """Why the image could not be read, with ``on_error='skip'``; None: it could."""
    source: Source | None = field(default=None, repr=False)
    """What was given, to be drawn on."""
    bgr: bool = field(default=False, repr=False)

    @classmethod
    def of(cls, detections: Detections, classes: tuple[str, ...], size: tuple[int, int], **image: Any) -> Result:
        """Of an image of ``size`` (width, height) px; ``classes`` are all of the detector's names."""
        names = tuple(classes[label] for label in detections.labels)
        return cls(*detections, names, *size, **image)

    @classmethod
    def failed(cls, error: str, **image: Any) -> Result:
        """Of an image that cannot be read: no detections."""
        none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        return cls.of(none, (), (0, 0), error=error, **image)

    def __len__(self) -> int:
        return len(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, as JSON takes them."""
        detections = [
            dict(box=[float(x) for x in box], score=float(score), label=int(label), name=name)
            for box, score, label, name in zip(self.boxes, self.scores, self.labels, self.names)
        ]
        known = dict(path=self.path, width=self.width, height=self.height, detections=detections)
        return known if self.error is None else {**known, 'error': self.error}

    def to_coco(self, image_id: int, category_ids: list[int] | None = None) -> list[dict[str, Any]]:
        """Entries of a results file in COCO's format: boxes by corner, width and height.

        Args:
            image_id: of the image in the annotation file.
            category_ids: those of the annotation file, by label; None: label + 1, as `iouquery data` numbers them.
                COCO's own have gaps.

        Raises:
            InputError: there are fewer ids than labels.
        """
        if category_ids is not None and self.labels.size and self.labels.max() >= len(category_ids):
            raise InputError(
                f'category_ids has {len(category_ids)} ids, and label {self.labels.max()} was found; give one for each '
                "of the detector's names, in their order"
            )
        return [
            dict(
                image_id=image_id,
                category_id=int(label) + 1 if category_ids is None else category_ids[label],
                bbox=[float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                score=float(score),
            )
            for (x1, y1, x2, y2), score, label in zip(self.boxes, self.scores, self.labels)
        ]

    def to_supervision(self) -> Any:
        """``supervision.Detections``, names in ``data['class_name']``.

        Raises:
            InputError: supervision is not installed.
        """
        supervision = optional('supervision', 'to_supervision()', 'supervision')
        data = {'class_name': np.asarray(self.names, dtype=str)}
        return supervision.Detections(xyxy=self.boxes, confidence=self.scores, class_id=self.labels, data=data)

    def draw(self, path: str | Path | None = None) -> Image.Image:
        """The image with its detections.

        Args:
            path: also write it there, as .jpg, .png or .webp.

        Raises:
            InputError: another suffix; the image cannot be read (any more); the file cannot be written.
        """
        form = None if path is None else FIGURES.get(Path(path).suffix.lower())
        if path is not None and form is None:
            raise InputError(f'{path}: a figure is written as {", ".join(FIGURES)}; change its ending')
        if self.error is not None or self.source is None:
            raise InputError(self.error or 'there is no image to draw on: give the detector one')
        figure = Image.fromarray(np.ascontiguousarray(read_image(self.source, 'the image', self.bgr)))
        self._draw_on(figure)
        if path is not None:
            exif = Image.Exif()
            exif[_SOFTWARE] = DRAWN_BY
            with whole_file(Path(path)) as temporary:
                figure.save(temporary, form, quality=95, exif=exif)
        return figure

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows; None: there is no image, and it shows the numbers."""
        if self.error is not None or self.source is None:
            return None
        content = BytesIO()
        self.draw().save(content, 'PNG')
        return content.getvalue()

    def _draw_on(self, figure: Image.Image) -> None:
        """The best last, so that they lie on top."""
        draw = ImageDraw.Draw(figure)
        side = max(figure.size)
        width, size = max(2, round(side / 400)), max(11, round(side / 50))
        font = _font(size)
        for i in reversed(range(len(self))):
            x1, y1, x2, y2 = (float(value) for value in self.boxes[i])
            colour = _colour(int(self.labels[i]))
            draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=width)
            words = _printable(self.names[i], font), f'{self.scores[i]:.2f}'
            _draw_label(draw, (x1, y1), words, font, size, colour)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    words: tuple[str, str],
    font: Any,
    size: int,
    colour: tuple[int, int, int],
) -> None:
    """Name and score in black, half an em apart, as far from the label's edges on all sides; all inside the image.

    The font's own space is 0.2 em, which is next to nothing where letters are small.
    """
    margin, gap = max(2, size // 4), size // 2
    (left, top, right, bottom), (left_2, top_2, right_2, bottom_2) = (_text_box(word, font) for word in words)
    top, bottom = min(top, top_2), max(bottom, bottom_2)
    width = 2 * margin + right - left + gap + right_2 - left_2
    x, y = round(max(0, min(at[0], draw.im.size[0] - width))), round(at[1])
    draw.rectangle((x, y, x + width - 1, y + 2 * margin + bottom - top - 1), fill=colour)
    draw.text((x + margin - left, y + margin - top), words[0], fill='black', font=font)
    draw.text((x + width - margin - right_2, y + margin - top), words[1], fill='black', font=font)


def was_drawn(path: Path) -> bool:
    """Whether a file is a figure of this package."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(_SOFTWARE) == DRAWN_BY
    except Exception:  # whatever ails it, it is no figure
        return False


def _colour(label: int) -> tuple[int, int, int]:
    """A light one for each class, neighbours far apart: hues go on by the golden ratio."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.6, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _font(size: int) -> Any:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # before Pillow 10.1, which has one size
        return ImageFont.load_default()


def _text_box(text: str, font: Any) -> tuple[float, float, float, float]:
    """Left, top, right and bottom edge of a text at 0, 0."""
    if hasattr(font, 'getbbox'):
        return font.getbbox(text)
    return (0, 0, *font.getsize(text))  # Pillow 9.1


def _printable(text: str, font: Any) -> str:
    """With question marks for what Pillow's old font lacks, and spaces doubled, which the new one has too narrow."""
    is_old = not hasattr(ImageFont, 'FreeTypeFont') or not isinstance(font, ImageFont.FreeTypeFont)
    return text.encode('latin-1', 'replace').decode('latin-1') if is_old else text.replace(' ', '  ')

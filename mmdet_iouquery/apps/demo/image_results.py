"""What the page says and draws of an image or a video, as texts, images and plain numbers, without Gradio."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ..analyze.draw import Box, contact_sheet
from .examples import Example
from .model import DemoModel, ExportedModel, ImageSource, Look
from .overlay import RESULT, detections, draw_overlay, names_of
from .video import Video, video_writer

NO_TOKENS = "This model's queries come from no encoder token: there is none to show."
TOKENS = 'Dots: the encoder tokens that became queries; larger on coarser levels, the lighter the higher their score.'
NO_LAYERS = 'An exported file gives its result alone, neither tokens nor layers.'


class ImageResult(NamedTuple):
    """What one model shows of an image."""

    model: str
    """Its name."""
    look: Look
    stage: str
    """Of ``look.stages``."""
    boxes: list[Box]
    """Best first, in px of the image."""
    names: tuple[str, ...]
    """By the boxes' label."""
    total: int
    """Of all that could be a box: the queries."""
    best: float
    """The highest score of all; 0 where there is none."""

    def draw(self, *, with_tokens: bool = False) -> Image.Image:
        """The image with the boxes, and the tokens that became queries."""
        return draw_overlay(self.look.image, self.boxes, self.names, self.look.trace if with_tokens else None)

    def sentence(self, threshold: float) -> str:
        """How many there are, in Markdown."""
        kind = 'queries' if self.look.trace else 'detections'
        text = f'**{len(self.boxes)} of {self.total} {kind}** score at least {threshold:.2f}.'
        return text if self.boxes else f'{text} The best has {self.best:.2f}.'

    def remark(self, *, with_tokens: bool) -> str:
        """What the drawing shows besides boxes, or why it doesn't; empty: nothing."""
        if self.look.trace is None:
            return NO_LAYERS
        if not with_tokens:
            return ''
        return NO_TOKENS if self.look.trace.tokens is None else TOKENS

    def table(self) -> str:
        """Class, score and corners of the boxes as HTML; nothing where there are none."""
        if not self.boxes:
            return ''
        rows = ['<th>class</th><th>score</th><th colspan="4">x1, y1, x2, y2 in px</th>']
        for box in self.boxes:
            cells = [html.escape(self.names[box.label]), f'{box.score:.2f}', *(f'{side:.0f}' for side in box.xyxy_px)]
            rows.append(''.join(f'<td>{cell}</td>' for cell in cells))
        return f'<div class="scroll"><table>{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'


def show(
    name: str, model: DemoModel | ExportedModel, source: ImageSource | Example, threshold: float, stage: str = RESULT
) -> ImageResult:
    """Let a model look at an image.

    Args:
        name: of the model.
        model: the model.
        source: an image, its file, or an example.
        threshold: boxes score at least this, in [0, 1].
        stage: whose boxes to show; the result's where the model has none of that name.

    Raises:
        InputError: the image can't be read.
    """
    look = model.look(source.path, source.size) if isinstance(source, Example) else model.look(source)
    stage = stage if stage in look.stages else RESULT
    boxes = look.stages[stage]
    return ImageResult(
        name,
        look,
        stage,
        detections(boxes, look.image.size, threshold),
        names_of(boxes, look.classes),
        len(boxes.scores),
        float(boxes.scores.max(initial=0.0)),
    )


def truth_boxes(example: Example) -> list[Box]:
    """Ground truth to draw; empty where there is none, or none is known."""
    if example.objects is None:
        return []
    return [
        Box(tuple(box), int(label)) for box, label in zip(example.objects.boxes_px.tolist(), example.objects.labels)
    ]


def draw_truth(example: Example, image: Image.Image) -> Image.Image:
    """The image with its ground truth."""
    return draw_overlay(image, truth_boxes(example), example.classes)


def side_by_side(drawings: Sequence[Image.Image]) -> Image.Image:
    """Drawings of one image side by side, as one."""
    return drawings[0] if len(drawings) == 1 else contact_sheet(drawings, len(drawings))


def as_json(results: Sequence[ImageResult], threshold: float, example: Example | None = None) -> dict[str, Any]:
    """The detections of all models shown, and the ground truth where it is known, as JSON takes them.

    Boxes are corners x1, y1, x2, y2 in px of the image; entries are those of ``iouquery_runtime``'s ``Result.to_dict``.
    """
    width, height = results[0].look.image.size
    models = [
        dict(model=result.model, boxes_of=result.stage, detections=[_entry(box, result.names) for box in result.boxes])
        for result in results
    ]
    content = dict(width=width, height=height, score_threshold=threshold, models=models)
    if example is None:
        return content
    known = (
        {} if example.objects is None else {'ground_truth': [_entry(b, example.classes) for b in truth_boxes(example)]}
    )
    return dict(image=example.path.name, **content, **known)


def annotate_video(
    video: Video,
    path: Path,
    looks: Callable[[Image.Image], ImageResult],
    progress: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Write a video with the boxes drawn on its frames.

    Args:
        video: to read.
        path: to write, see :func:`~mmdet_iouquery.apps.demo.video.video_writer`.
        looks: what is shown of a frame.
        progress: told of how many frames are done.

    Returns:
        Time in s and detections of each frame.
    """
    frames = []
    with video_writer(path, video.rate) as add:
        for done, frame in enumerate(video, start=1):
            result = looks(frame.image)
            add(result.draw())
            boxes = [_entry(box, result.names) for box in result.boxes]
            frames.append(dict(time=round(frame.time_s, 3), detections=boxes))
            progress(done)
    return frames


def _entry(box: Box, names: Sequence[str]) -> dict[str, Any]:
    known = dict(box=[float(side) for side in box.xyxy_px], label=int(box.label), name=names[box.label])
    return known if box.score is None else dict(known, score=float(box.score))

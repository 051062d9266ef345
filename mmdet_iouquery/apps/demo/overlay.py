"""A model's boxes and tokens drawn on the image.

Boxes are x1, y1, x2, y2 in px of the image. Q queries, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..analyze.draw import Box, draw_side_by_side, side_by_side_views
from ..analyze.trace import Numbers, QueryTrace, ScoredBoxes

RESULT = 'result'
"""The last decoder layer's name among the stages."""

# From the lowest score to the highest; dark to light, so that the order is seen without its hues.
_RAMP = np.array([(60, 20, 110), (190, 50, 100), (250, 140, 40), (250, 245, 140)])
_EDGE = (255, 255, 255)
_RADIUS = 3  # px of a dot on the finest level; each coarser one has 2 more


def stages(trace: QueryTrace) -> dict[str, ScoredBoxes]:
    """What can be shown of an image, first to last: the encoder's predictions, if any, and each decoder layer's."""
    encoder = {} if trace.encoder is None else {'encoder': trace.encoder}
    layers = {f'layer {number}': boxes for number, boxes in enumerate(trace.layers[:-1], start=1)}
    return {**encoder, **layers, RESULT: trace.layers[-1]}


def detections(boxes: ScoredBoxes, size_px: tuple[int, int], threshold: float) -> list[Box]:
    """The queries whose best class scores at least ``threshold``, best first, cut at the image's edges.

    Args:
        boxes: of one stage.
        size_px: the image's width and height.
        threshold: in [0, 1].
    """
    order = np.argsort(-boxes.scores, kind='stable')
    kept = order[boxes.scores[order] >= threshold]
    clipped = boxes.boxes_px.clip(0, np.tile(size_px, 2))
    rows = zip(clipped[kept].tolist(), boxes.labels[kept].tolist(), boxes.scores[kept].tolist())
    return [Box(tuple(corner), label, score) for corner, label, score in rows]


def names_of(boxes: ScoredBoxes, classes: Sequence[str]) -> tuple[str, ...]:
    """C names for a stage's labels, whatever is known of the classes."""
    count = boxes.class_scores.shape[1]
    if len(classes) == count:
        return tuple(classes)
    return ('object',) if count == 1 else tuple(f'class {label}' for label in range(count))


def draw_overlay(
    image: Image.Image, boxes: Sequence[Box], names: Sequence[str], tokens_of: QueryTrace | None = None
) -> Image.Image:
    """Draw boxes with their names and scores; small images come out enlarged and large ones reduced.

    Args:
        image: RGB.
        boxes: in its px.
        names: by label.
        tokens_of: also draw the tokens that this image's queries come from, under the boxes: a dot in the middle of
            each, larger on coarser levels, the lighter the higher its score.

    Returns:
        The drawing; its scale is that of :func:`~mmdet_iouquery.apps.analyze.draw.side_by_side_views`.
    """
    enlarged, _ = side_by_side_views(*image.size)
    smooth = Image.Resampling.BICUBIC if enlarged.scale >= 1 else Image.Resampling.LANCZOS
    canvas = image.resize((enlarged.width, enlarged.height), smooth)
    if tokens_of is not None:
        _draw_tokens(ImageDraw.Draw(canvas), tokens_of, enlarged.scale)
    scaled = [Box(_scaled(box.xyxy_px, enlarged.scale), box.label, box.score) for box in boxes]
    _, view = side_by_side_views(*canvas.size)
    drawing = draw_side_by_side(canvas, [], scaled, names)
    return drawing.crop((view.left, view.top, view.left + view.width, view.top + view.height))


def _scaled(xyxy: tuple[float, float, float, float], scale: float) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = xyxy
    return x1 * scale, y1 * scale, x2 * scale, y2 * scale


def _draw_tokens(pen: ImageDraw.ImageDraw, trace: QueryTrace, scale: float) -> None:
    if trace.tokens is None:
        return
    scores = token_scores(trace)
    best = scores.max()
    for query in np.lexsort((scores, -trace.tokens.level)):  # coarse ones under fine ones, the best on top
        x, y = trace.tokens.centres_px[query] * scale
        radius = _RADIUS + 2 * int(trace.tokens.level[query])
        pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=token_colour(scores[query] / best), outline=_EDGE
        )


def token_scores(trace: QueryTrace) -> Numbers:
    """What the encoder gives the tokens that became queries, (Q,); where it gives none, the last layer's scores."""
    return (trace.encoder or trace.layers[-1]).scores


def token_colour(share: float) -> tuple[int, int, int]:
    """RGB of a token's dot, lighter for a higher score, which is given as a share of the image's highest."""
    steps = np.linspace(0, 1, len(_RAMP))
    red, green, blue = (round(float(np.interp(share, steps, channel))) for channel in _RAMP.T)
    return red, green, blue

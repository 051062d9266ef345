"""Queries drawn on their image: where they were selected, and what is made of the noisy ones.

A drawn coordinate is the trace's own number: axes are in px of the image as it lies on the disk and end at its edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import InputError
from ...evaluation.selection_quality import best_overlap, iou_of
from .chart import COLOURS, MARKERS, Chart, new_figure
from .image_axes import (
    SMALL_FONT,
    ImageOrArray,
    Numbers,
    Row,
    centres_of,
    corners,
    level_names,
    outline,
    rgb_of,
    show_image,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    from ...evaluation.selection_quality import Objects
    from .trace import Noise, QueryTrace


CMAP = 'viridis'
OBJECT_COLOUR = COLOURS[1]
"""Of ground truth: vermilion, which viridis does not hold."""
_WIDTH = 1000


def selected_tokens_chart(trace: QueryTrace, image: ImageOrArray, name: str, *, boxes: int = 10) -> Chart:
    """The encoder tokens that became queries, and the best of their boxes (query selection, RT-DETR section 4.3).

    Three panels: the tokens at their place, coloured by the score of the encoder's best class; the same, coloured by
    the IoU of the encoder's box with the object that it overlaps most (left out where there is no object); the
    encoder's boxes of highest score. Learned anchors come from no token: their centres and boxes are drawn instead, and
    the score is that of the last decoder layer.

    Args:
        image: the trace's, (H, W, 3) uint8 RGB or a PIL image.
        name: of the chart's files.
        boxes: how many boxes to draw.

    Raises:
        InputError: queries that are neither tokens nor anchors, or an image of another size.
    """
    pixels, selected = rgb_of(image, trace), _selected(trace)
    overlap, nearest = best_overlap(selected.boxes_px, trace.objects)
    best = np.argsort(-selected.scores, kind='stable')[:boxes]
    scale, panels = _scale_of(selected.scores), 3 if len(trace.objects.labels) else 2
    handles = [*_level_handles(trace, selected.levels), _object_handle(trace)]
    figure = new_figure(_WIDTH, _panel_height(trace, panels) + (130 if len(handles) <= 4 else 160), layout='compressed')
    grid = figure.subplots(1, panels)
    for axes in grid:
        show_image(axes, pixels)
        _draw_objects(axes, trace.objects)
    _draw_tokens(grid[0], selected, selected.scores, scale, 'score')
    if panels == 3:
        _draw_tokens(grid[1], selected, overlap, _normalize(0, 1), 'IoU')
        _colour_bar(grid[1], _normalize(0, 1), 'IoU with the best-overlapping object')
    _draw_best(grid[-1], selected, best, scale)
    for axes in (grid[0], grid[-1]):
        _colour_bar(axes, scale, selected.score_name)
    _legend(figure, handles)
    rows = _selected_rows(trace, selected, overlap, nearest, best)
    iou = ', or the IoU of its box with the object that the box overlaps most' if panels == 3 else ''
    caption = (
        f'{selected.caption} Colour is {selected.score_name}{iou}. The last panel shows the {len(best)} boxes of '
        'highest score.'
    )
    return Chart(name, selected.title, caption, figure, [*rows, *_object_rows(trace.objects)])


def denoising_chart(trace: QueryTrace, image: ImageOrArray, name: str) -> Chart:
    """Denoising queries before and after: the noisy boxes, and what the last decoder layer makes of them.

    One group of contrastive denoising (DINO, section 3.3): for each object a positive, which is to be restored, and
    perhaps a negative, which lies farther off and is to be recognised as no object. A thin line leads from each box's
    centre to its object's.

    Args:
        image: the trace's, (H, W, 3) uint8 RGB or a PIL image.
        name: of the chart's files.

    Raises:
        InputError: there are no denoising queries, or the image has another size.
    """
    if trace.noise is None:
        raise InputError(
            'there are no denoising queries to draw: the detector has no denoising part, or the image no objects; name '
            'a detector trained with denoising, and an image with objects'
        )
    pixels, noise, objects = rgb_of(image, trace), trace.noise, trace.objects
    truth_px = objects.boxes_px[noise.truth]
    stages = {'before': noise.before_px, 'after': noise.after.boxes_px}
    rows = _noise_rows(trace, noise)
    means = _noise_means(rows)
    figure = new_figure(_WIDTH, _panel_height(trace, 2) + 100, layout='compressed')
    for axes, (stage, boxes) in zip(figure.subplots(1, 2), stages.items()):
        show_image(axes, pixels)
        _draw_noise(axes, boxes, truth_px, noise.positive)
        _draw_objects(axes, objects)
        axes.set_title(_noise_title(stage, means), fontsize=10)
    _legend(figure, [*_noise_handles(noise.positive), _object_handle(trace)])
    caption = (
        'One group of denoising queries: on the left the noisy boxes that go in, on the right what the last decoder '
        "layer makes of them. A thin line leads from each box's centre, a dot, to its object's; a box that noise has "
        'made narrower than a line shows as a stroke, or as its dot alone. Positives should come to lie on '
        "their object with a high score, negatives should get a low one. Scores are for the object's class."
    )
    return Chart(name, 'Denoising queries', caption, figure, [*rows, *means, *_object_rows(objects)])


class _Selected(NamedTuple):
    """Queries at the place that they come from."""

    centres_px: Numbers
    levels: Numbers | None
    boxes_px: Numbers
    scores: Numbers
    noun: str
    score_name: str
    title: str
    caption: str


def _selected(trace: QueryTrace) -> _Selected:
    if trace.tokens is not None and trace.encoder is not None:
        return _Selected(
            trace.tokens.centres_px,
            trace.tokens.level,
            trace.encoder.boxes_px,
            trace.encoder.scores,
            'selected tokens',
            "the encoder's score",
            'Selected encoder tokens',
            'A mark stands at each encoder token that became a query, its shape tells the level.',
        )
    if trace.anchors_px is None:
        raise InputError(
            'these queries are neither encoder tokens nor anchors, so they have no place on the image; name a detector '
            'that selects queries or learns anchors'
        )
    return _Selected(
        centres_of(trace.anchors_px),
        None,
        trace.anchors_px,
        trace.layers[-1].scores,
        'anchors',
        "the last layer's score",
        'Anchors',
        'These queries come from no encoder token: a mark stands at the centre of the anchor that each starts from.',
    )


def _panel_height(trace: QueryTrace, panels: int) -> int:
    """Px that an image takes beside its like, no more than 900."""
    width, height = trace.size_px
    return min(900, round((_WIDTH - 20) / panels * height / width))


def _normalize(low: float, high: float) -> Normalize:
    from matplotlib.colors import Normalize

    return Normalize(low, high)


def _scale_of(scores: Numbers) -> Normalize:
    low, high = float(scores.min()), float(scores.max())
    return _normalize(low, high) if low < high else _normalize(0, 1)


def _draw_tokens(axes: Axes, selected: _Selected, values: Numbers, scale: Normalize, quantity: str) -> None:
    levels = np.zeros(len(values), dtype=int) if selected.levels is None else selected.levels
    order = np.argsort(values, kind='stable')  # the highest come last, on top
    for level in np.unique(levels):
        chosen = order[levels[order] == level]
        x, y = selected.centres_px[chosen].T
        axes.scatter(
            x,
            y,
            c=values[chosen],
            norm=scale,
            cmap=CMAP,
            marker=MARKERS[level % len(MARKERS)],
            s=30,
            linewidths=0.6,
            edgecolors='white',
            zorder=4,
        )
    axes.set_title(f'{selected.noun}, by {quantity}', fontsize=10)


def _draw_best(axes: Axes, selected: _Selected, best: Numbers, scale: Normalize) -> None:
    import matplotlib

    for query in best[::-1]:
        outline(axes, selected.boxes_px[query], edgecolor=matplotlib.colormaps[CMAP](scale(selected.scores[query])))
    axes.set_title(f'{len(best)} boxes of highest score', fontsize=10)


def _draw_objects(axes: Axes, objects: Objects) -> None:
    for box in objects.boxes_px:
        outline(axes, box, edgecolor=OBJECT_COLOUR, linewidth=1.4, zorder=2)


_NOISE_STYLES: Mapping[bool, Mapping[str, Any]] = {
    True: {'color': COLOURS[0], 'linestyle': '-'},
    False: {'color': '0.1', 'linestyle': (0, (4, 1.5))},
}


def _draw_noise(axes: Axes, boxes_px: Numbers, truth_px: Numbers, positive: Numbers) -> None:
    for box, target, is_positive in zip(boxes_px, truth_px, positive):
        style = _NOISE_STYLES[bool(is_positive)]
        outline(axes, box, edgecolor=style['color'], linestyle=style['linestyle'], linewidth=1.5)
        line = np.stack([centres_of(box), centres_of(target)])
        axes.plot(*line.T, **style, linewidth=0.9, marker='o', markersize=3, markevery=[0], zorder=4)


def _noise_title(stage: str, means: Sequence[Row]) -> str:
    lines = [{'before': 'before the decoder', 'after': 'after the last decoder layer'}[stage]]
    for key, text in (('iou', 'mean IoU with their object'), ('score', 'mean score')):
        values = [
            f'{"positives" if row["positive"] else "negatives"} {row[key]:.2f}'
            for row in means
            if row['stage'] == stage and row[key] is not None
        ]
        lines.append(f'{text}: {", ".join(values)}' if values else ' ')
    return '\n'.join(lines)


def _noise_handles(positive: Numbers) -> list[Any]:
    from matplotlib.lines import Line2D

    names = {True: 'positive, to be restored', False: 'negative, no object'}
    return [
        Line2D([], [], **_NOISE_STYLES[kind], label=label) for kind, label in names.items() if (positive == kind).any()
    ]


def _level_handles(trace: QueryTrace, levels: Numbers | None) -> list[Any]:
    from matplotlib.lines import Line2D

    if levels is None:
        return [Line2D([], [], linestyle='', marker=MARKERS[0], color='0.4', label="an anchor's centre")]
    return [
        Line2D([], [], linestyle='', marker=MARKERS[level % len(MARKERS)], color='0.4', label=label)
        for level, label in enumerate(level_names(trace))
    ]


def _object_handle(trace: QueryTrace) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=OBJECT_COLOUR, label='object' if len(trace.objects.labels) else 'object (there is none)'
    )


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    columns = len(handles) if len(handles) <= 4 else 3
    figure.legend(handles=handles, loc='outside lower center', ncols=columns, frameon=False, fontsize=SMALL_FONT)


def _colour_bar(axes: Axes, scale: Normalize, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    bar_place: dict[str, Any] = {'location': 'bottom', 'fraction': 0.06, 'pad': 0.03, 'aspect': 30}
    bar = axes.figure.colorbar(ScalarMappable(scale, CMAP), ax=axes, ticks=MaxNLocator(5), **bar_place)
    bar.set_label(label, fontsize=SMALL_FONT)
    bar.ax.tick_params(labelsize=SMALL_FONT)


def _selected_rows(
    trace: QueryTrace, selected: _Selected, overlap: Numbers, nearest: Numbers, best: Numbers
) -> list[Row]:
    tokens, levels, has_objects = trace.tokens, selected.levels, len(trace.objects.labels) > 0
    return [
        {
            'kind': 'query',
            'query': query,
            'token': None if levels is None or tokens is None else int(tokens.number[query]),
            'level': None if levels is None else int(levels[query]),
            'x': float(x),
            'y': float(y),
            'score': float(score),
            'iou': float(overlap[query]) if has_objects else None,
            'object': int(nearest[query]) if has_objects else None,
            **corners(selected.boxes_px[query]),
            'box_drawn': bool(query in best),
        }
        for query, ((x, y), score) in enumerate(zip(selected.centres_px, selected.scores))
    ]


def _noise_rows(trace: QueryTrace, noise: Noise) -> list[Row]:
    truth_px, labels = (x[noise.truth] for x in trace.objects)
    before, after = iou_of(noise.before_px, truth_px), iou_of(noise.after.boxes_px, truth_px)
    return [
        {
            'kind': 'denoising query',
            'query': query,
            'object': int(truth),
            'positive': bool(noise.positive[query]),
            **corners(noise.before_px[query], '_before'),
            **corners(noise.after.boxes_px[query], '_after'),
            'iou_before': float(before[query]),
            'iou_after': float(after[query]),
            'score_after': float(noise.after.class_scores[query, labels[query]]),
        }
        for query, truth in enumerate(noise.truth)
    ]


def _noise_means(rows: Sequence[Row]) -> list[Row]:
    means: list[Row] = []
    for stage in ('before', 'after'):
        for positive in (True, False):
            chosen = [row for row in rows if row['positive'] == positive]
            if chosen:
                score = mean(row['score_after'] for row in chosen) if stage == 'after' else None
                iou = mean(row[f'iou_{stage}'] for row in chosen)
                means.append({'kind': 'mean', 'stage': stage, 'positive': positive, 'iou': iou, 'score': score})
    return means


def _object_rows(objects: Objects) -> list[Row]:
    return [
        {'kind': 'object', 'object': index, 'label': int(label), **corners(box)}
        for index, (box, label) in enumerate(zip(objects.boxes_px, objects.labels))
    ]

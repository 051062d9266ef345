"""Figures of decoder layers: how boxes move, and how IoU and score change from layer to layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .chart import COLOURS, LINE_STYLES, MARKERS, Chart, new_figure, plain_axes
from .image_axes import outline
from .refinement import Refinement, matched_queries, summary
from .trace import QueryTrace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[Any]
_QUANTITIES = {
    'ious': 'IoU with its object',
    'scores': "score of the object's class",
    'shifts': 'shift of the centre (object sizes)',
}
_LEVELS = np.linspace(0, 1, 41)


def layer_chart(models: Mapping[str, Refinement], name: str = 'layers') -> Chart:
    """IoU, score and movement by layer: a model's mean as a line, half of its queries as a band.

    Raises:
        InputError: no model has a query that ends up on an object.
    """
    _require_matches(models)
    figure = new_figure(1000, 460)
    panels = figure.subplots(1, 3)
    rows: list[dict[str, Any]] = []
    for index, (model, refinement) in enumerate(models.items()):
        colour = COLOURS[index % len(COLOURS)]
        for axes, quantity in zip(panels, _QUANTITIES):
            values = getattr(refinement, quantity)
            stages = np.arange(len(values)) + (quantity == 'shifts')
            sums = summary(values)
            rows += [
                {'model': model, 'quantity': quantity, 'layer': int(stage), **row} for stage, row in zip(stages, sums)
            ]
            mean, low, high = (
                [np.nan if row[key] is None else row[key] for row in sums] for key in ('mean', 'q25', 'q75')
            )
            axes.fill_between(stages, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(
                stages,
                mean,
                color=colour,
                linestyle=LINE_STYLES[index % len(LINE_STYLES)],
                marker=MARKERS[index % len(MARKERS)],
                linewidth=2,
                label=model,
            )
    depth = max(len(refinement.ious) for refinement in models.values())
    for axes, (quantity, label) in zip(panels, _QUANTITIES.items()):
        first = int(quantity == 'shifts')
        plain_axes(axes).set(title=label, xlabel='decoder layer' if first else 'decoder layer (0: the start)')
        axes.set_xticks(range(first, depth))
        axes.set_ylim(bottom=0, top=None if quantity == 'shifts' else 1)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside upper left', frameon=False)
    caption = (
        'For each object, the query that ends up on it, followed through the decoder. Lines are means, bands hold the '
        'middle half of the queries. Layer 0 is where the decoder starts: the selected or learned box.'
    )
    return Chart(name, 'Layer by layer', caption, figure, rows)


def layer_quantile_chart(model: str, refinement: Refinement, name: str = 'layer-quantiles') -> Chart:
    """All quantiles of IoU and of score, a line for each layer.

    Raises:
        InputError: no query ends up on an object.
    """
    _require_matches({model: refinement})
    figure = new_figure(1000, 440)
    panels = figure.subplots(1, 2)
    rows: list[dict[str, Any]] = []
    for axes, quantity in zip(panels, ('ious', 'scores')):
        values = getattr(refinement, quantity)
        for stage, known in enumerate(values):
            known = known[np.isfinite(known)]
            if not len(known):
                continue
            quantiles = np.quantile(known, _LEVELS)
            _stage_line(axes, stage, len(values), quantiles)
            rows += [
                {'model': model, 'quantity': quantity, 'layer': stage, 'quantile': float(level), 'value': float(value)}
                for level, value in zip(_LEVELS, quantiles)
            ]
        plain_axes(axes).set(title=_QUANTITIES[quantity], xlabel='part of the queries (%)', xlim=(0, 100), ylim=(0, 1))
    handles = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend([*handles.values()], [*handles], loc='outside upper left', frameon=False, ncols=4)
    caption = (
        f'{model}: the queries that end up on objects, sorted by IoU (left) and score (right), a line for each layer. '
        'Where a line lies above another over the whole width, that layer is better for all of them.'
    )
    return Chart(name, f'Layers of {model}', caption, figure, rows)


def layer_boxes_chart(trace: QueryTrace, image: Any, model: str, name: str = 'layer-boxes') -> Chart:
    """The boxes of the queries that end up on objects: a panel for the start and one for each layer.

    Args:
        image: PIL image or (H, W, 3) uint8 RGB, of the traced image.

    Raises:
        InputError: no query ends up on an object.
    """
    from matplotlib.lines import Line2D

    objects, queries = matched_queries(trace)
    if not len(queries):
        raise InputError(
            f'no query of {model} ends up on an object of {trace.path}: there are no boxes to follow; name another '
            'image, or train longer'
        )
    stages: list[tuple[str, Numbers, Numbers | None]] = []
    if trace.anchors_px is not None:
        stages.append(('start', trace.anchors_px, None))
    stages += [(f'layer {i}', layer.boxes_px, layer.class_scores) for i, layer in enumerate(trace.layers, start=1)]
    columns = min(4, len(stages))
    lines = -(-len(stages) // columns)
    width, height = trace.size_px
    panel = 1000 / columns
    figure = new_figure(1000, round(lines * (panel * height / width + 34)) + 40)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    rows: list[dict[str, Any]] = []
    for axes, (title, boxes, scores) in zip(panels, stages):
        axes.imshow(np.asarray(image), extent=(0, width, height, 0))
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], title=title)
        for object_index, query in zip(objects, queries):
            colour = COLOURS[object_index % len(COLOURS)]
            outline(axes, trace.objects.boxes_px[object_index], edgecolor='black', linewidth=1.6, linestyle='--')
            outline(axes, boxes[query], edgecolor=colour, linewidth=1.2)
            score = None if scores is None else float(scores[query, trace.objects.labels[object_index]])
            rows.append(
                {'model': model, 'stage': title, 'object': int(object_index), 'query': int(query), 'score': score}
                | dict(zip(('x1', 'y1', 'x2', 'y2'), map(float, boxes[query])))
            )
    for axes in panels[len(stages) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color='black', linewidth=1.6, linestyle='--', label='object'),
        Line2D(
            [], [], color=COLOURS[objects[0] % len(COLOURS)], linewidth=1.2, label='box of its query, a colour for each'
        ),
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=2, frameon=False)
    caption = (
        f'{model}: for each object (dashed) the box of the query that ends up on it, from the start through the '
        'decoder layers. Boxes that jump late are found late.'
    )
    return Chart(name, 'Boxes by layer', caption, figure, rows)


def _stage_line(axes: Axes, stage: int, stages: int, quantiles: Numbers) -> None:
    """Later layers are darker; the start is dashed."""
    axes.plot(
        100 * _LEVELS,
        quantiles,
        color=str(0.75 - 0.75 * stage / max(1, stages - 1)),
        linestyle='--' if stage == 0 else '-',
        linewidth=1.8,
        marker=MARKERS[stage % len(MARKERS)],
        markevery=(stage, 8),
        label=f'layer {stage}' if stage else 'start',
    )


def _require_matches(models: Mapping[str, Refinement]) -> None:
    if not any(refinement.ious.size for refinement in models.values()):
        raise InputError(
            f'no query of {", ".join(models)} ends up on an object: there is nothing to follow through the layers; '
            'train longer, or name images with objects'
        )

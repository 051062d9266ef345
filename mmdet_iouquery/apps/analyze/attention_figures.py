"""Where queries look: cross-attention of decoder layers over the image, and what of it is due to position alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...evaluation.selection_quality import iou_of
from .chart import COLOURS, MARKERS, Chart, new_figure
from .heat_maps import CUT, LABEL_WIDTH, cell_rows, heat_bar, heat_colours, row_label, wrapped
from .image_axes import SMALL_FONT, ImageOrArray, Numbers, Row, corners, level_names, outline, rgb_of, show_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .trace import QueryTrace

_WIDTH = 1000
_LARGEST_HEAT = 480  # px of a heat map's longer side: panels are smaller
_MARGIN = 1.2  # of a panel around sampling points, beside what they extend over
_SMALLEST_SHARE = 0.25  # of the image's width and height that a panel shows


def interesting_queries(trace: QueryTrace, count: int) -> Numbers:
    """For each object, the biggest first, the query that finds it best in the last layer: (K,) int, K <= count.

    The best has the highest product of its score for the object's class and its IoU with the object. No query comes
    twice. Without objects they are the queries of highest score.
    """
    last, objects = trace.layers[-1], trace.objects
    if not len(objects.labels):
        return np.argsort(-last.scores, kind='stable')[:count]
    sides = objects.boxes_px[:, 2:] - objects.boxes_px[:, :2]
    chosen: list[int] = []
    for index in np.argsort(-sides.prod(axis=1), kind='stable')[: min(count, len(last.boxes_px))]:
        quality = last.class_scores[:, objects.labels[index]] * iou_of(last.boxes_px, objects.boxes_px[index])
        quality[chosen] = -1
        chosen.append(int(quality.argmax()))
    return np.array(chosen, dtype=int)


def attention_chart(
    trace: QueryTrace, image: ImageOrArray, queries: Sequence[int] | Numbers, name: str, classes: Sequence[str]
) -> Chart:
    """Cross-attention of some queries (rows) in each decoder layer (columns), mean over heads.

    Dense attention is a heat map of the tokens' weights, see :func:`spread_over_image`; of deformable attention the
    sampling points are drawn, their area in proportion to their weight, on the part of the image that they lie in.

    Args:
        image: the trace's, (H, W, 3) uint8 RGB or a PIL image.
        queries: (K,) indices, see :func:`interesting_queries`.
        name: of the chart's files.
        classes: names by label.

    Raises:
        InputError: attention that can't be read, no queries or unknown ones, or an image of another size.
    """
    pixels, queries = rgb_of(image, trace), _checked(trace, queries)
    if not trace.attention:
        raise InputError(
            "the decoder's cross-attention is of a kind that cannot be read; see docs/queries.md for the models of "
            'which it can'
        )
    depth, dense = len(trace.attention), all(attention.dense for attention in trace.attention)
    panel = (_WIDTH - 2 * LABEL_WIDTH) / depth
    height = len(queries) * max(80, round(panel * trace.size_px[1] / trace.size_px[0]) + 8) + 90
    figure = new_figure(_WIDTH, height, layout='compressed')
    grid = figure.subplots(len(queries), depth, squeeze=False)
    for axes in grid.flat:
        show_image(axes, pixels)
    rows = _label_rows(grid[:, 0], trace, queries, classes)
    points = [None if attention.dense else attention.points(queries) for attention in trace.attention]
    heaviest = max((float(layer_points[1].max()) for layer_points in points if layer_points is not None), default=1.0)
    area = 240 / max(3, depth) / heaviest  # of a mark, in square points, for a weight of 1
    for layer, (column, layer_points) in enumerate(zip(grid.T, points)):
        column[0].set_title(f'layer {layer + 1}', fontsize=10)
        keys = [{'query': int(query), 'layer': layer + 1} for query in queries]
        if layer_points is None:
            maps = trace.attention[layer].maps(queries)
            _draw_heat(column, maps, trace)
            rows += cell_rows(maps, keys)
        else:
            _draw_points(column, layer_points, area)
            rows += _point_rows(layer_points, keys)
        rows += _draw_input_boxes(column, input_boxes(trace, layer), keys)
    sampled = [layer_points[0] for layer_points in points if layer_points is not None]
    if len(sampled) == depth:  # else the heat maps need the whole image
        boxes = [boxes for layer in range(depth) if (boxes := input_boxes(trace, layer)) is not None]
        for line, query, *points_px in zip(grid, queries, *sampled):
            corners_px = [of_layer[query].reshape(2, 2) for of_layer in boxes]
            _show_part(line, np.concatenate([*points_px, *corners_px]), trace.size_px)
    _legend(figure, trace, {} if dense else {weight: area * weight for weight in (heaviest / 4, heaviest)})
    if dense:
        heat_bar(figure, grid)
    caption = 'Rows are queries, columns are decoder layers. ' + (_HEAT if dense else _POINTS) + f' {_BOX}'
    return Chart(name, 'Where queries look, layer by layer', caption, figure, rows)


def positional_attention_chart(
    traces: Mapping[str, QueryTrace],
    queries: Mapping[str, Sequence[int] | Numbers],
    images: Mapping[str, ImageOrArray],
    name: str,
    *,
    layer: int = -1,
) -> Chart:
    """Attention by position alone of some queries (columns) of several models (rows): DAB-DETR, figure 4.

    Content is set to zero, so that what is left compares the query's position code with the tokens'. Models whose
    attention samples points have none; they are left out and named in the caption.

    Args:
        traces: by name of the model.
        queries: (K,) indices by name of the model.
        images: the traces', by name of the model.
        name: of the chart's files.
        layer: decoder layer to show, counted from 0, or from the last if negative.

    Raises:
        InputError: no model has dense attention, a model has no such layer, or as :func:`attention_chart`.
    """
    shown = {model: trace for model, trace in traces.items() if any(attention.dense for attention in trace.attention)}
    if not shown:
        raise InputError(
            f'none of {", ".join(traces) or "no models"} has attention by position alone: they sample points; name a '
            'model with dense cross-attention'
        )
    chosen = {model: _checked(trace, queries[model]) for model, trace in shown.items()}
    columns = max(len(queries_of_one) for queries_of_one in chosen.values())
    panel = min(240.0, (_WIDTH - 2 * LABEL_WIDTH) / columns)
    heights = [max(80, round(panel * trace.size_px[1] / trace.size_px[0])) + 24 for trace in shown.values()]
    figure = new_figure(_WIDTH, sum(heights) + 60, layout='compressed')
    grid = figure.subplots(len(shown), columns, squeeze=False, height_ratios=heights)
    rows: list[Row] = []
    for line, (model, trace) in zip(grid, shown.items()):
        number, pixels = _layer_number(trace, layer, model), rgb_of(images[model], trace)
        keys = [{'model': model, 'query': int(query), 'layer': number + 1} for query in chosen[model]]
        rows += _draw_by_position(line, trace, pixels, keys)
        row_label(line[0], wrapped(model))
    _legend(figure, next(iter(shown.values())), {})
    heat_bar(figure, grid)
    left_out = [model for model in traces if model not in shown]
    layer_name = (
        'the last decoder layer' if layer == -1 else f'decoder layer {layer + 1}' if layer >= 0 else f'layer {layer}'
    )
    caption = (
        f'Rows are models, columns are queries of {layer_name}; all content is set to zero, so that position alone is '
        f'left. {_HEAT} {_BOX}'
        + (
            f' Left out, as their attention samples points or cannot be read: {", ".join(left_out)}.'
            if left_out
            else ''
        )
    )
    return Chart(name, 'Attention by position alone', caption, figure, rows)


def spread_over_image(maps: Sequence[Numbers], input_px: Sequence[float], size_px: tuple[int, int]) -> Numbers:
    """Weights of tokens, for each level (K, h, w), as weight for each pixel of an image: (K, H, W).

    A token's weight is spread evenly over its cell, and the levels are summed, so that the total stays what it was;
    only what lies in the padding is lost.

    Args:
        input_px: width and height that the maps cover, in the image's px, padding included.
        size_px: width and height of the image.
    """
    width, height = size_px
    return sum(
        _cell_shares(level.shape[1], input_px[1], height)
        @ level.astype(float)
        @ _cell_shares(level.shape[2], input_px[0], width).T
        for level in maps
    )


def input_boxes(trace: QueryTrace, layer: int) -> Numbers | None:
    """Boxes (Q, 4) that a decoder layer, counted from 0, refines: the anchors, then what the layer before predicted."""
    return trace.anchors_px if layer == 0 else trace.layers[layer - 1].boxes_px


def _cell_shares(cells: int, length_px: float, pixels: int) -> Numbers:
    """(pixels, cells): the share of each cell's length that lies in each pixel."""
    side = length_px / cells
    left, first = np.arange(cells) * side, np.arange(pixels)[:, None]
    common = np.minimum(first + 1, left + side) - np.maximum(first, left)
    return common.clip(0) / side


_HEAT = (
    "A heat map shows the tokens' weights, mean over heads, each spread over its cell and all levels summed; its "
    f"colours run from 0 to the panel's own highest value. {CUT}"
)
_POINTS = (
    'Each mark is a sampling point, its area in proportion to its weight. A row shows the part of the image that its '
    'points lie in.'
)
_BOX = (
    'The black box is the anchor in the first layer, where queries have anchors, and the box predicted by the layer '
    'before in the others.'
)


def _checked(trace: QueryTrace, queries: Sequence[int] | Numbers) -> Numbers:
    numbers, count = np.asarray(queries, dtype=int).reshape(-1), len(trace.layers[-1].boxes_px)
    if not len(numbers) or numbers.min() < 0 or numbers.max() >= count:
        raise InputError(f'queries to draw must be one or more of 0 to {count - 1}, got {numbers.tolist()}')
    return numbers


def _layer_number(trace: QueryTrace, layer: int, model: str) -> int:
    depth = len(trace.attention)
    if not -depth <= layer < depth or not trace.attention[layer].dense:
        raise InputError(
            f'{model} has no dense cross-attention in decoder layer {layer}; name one of its {depth} layers, counted '
            'from 0'
        )
    return layer % depth


def _draw_heat(line: Sequence[Axes] | Numbers, maps: Sequence[Numbers], trace: QueryTrace) -> None:
    width, height = trace.size_px
    scale = min(1.0, _LARGEST_HEAT / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    covered = trace.input_px[0] * size[0] / width, trace.input_px[1] * size[1] / height
    for axes, heat in zip(line, spread_over_image(maps, covered, size)):
        axes.imshow(
            heat,
            cmap=heat_colours(),
            vmin=0,
            vmax=heat.max() or 1,
            extent=(0, width, height, 0),
            interpolation='nearest',
        )


def _draw_by_position(line: Numbers, trace: QueryTrace, pixels: NDArray[np.uint8], keys: Sequence[Row]) -> list[Row]:
    """One model's row of :func:`positional_attention_chart`; what is left of the row stays empty."""
    queries, layer = np.array([key['query'] for key in keys]), keys[0]['layer'] - 1
    for axes, query in zip(line, queries):
        show_image(axes, pixels)
        axes.set_title(f'query {query}', fontsize=SMALL_FONT)
    for axes in line[len(keys) :]:
        axes.set_visible(False)
    maps = trace.attention[layer].maps(queries, content=False)
    _draw_heat(line, maps, trace)
    return [*cell_rows(maps, keys), *_draw_input_boxes(line, input_boxes(trace, layer), keys)]


def _draw_points(line: Sequence[Axes] | Numbers, points: tuple[Numbers, Numbers, Numbers], area: float) -> None:
    """Sampling points; ``area`` is a mark's for a weight of 1, in square points."""
    points_px, weights, levels = points
    for axes, query_points, weight in zip(line, points_px, weights):
        for level in np.unique(levels):
            chosen = levels == level
            axes.scatter(
                *query_points[chosen].T,
                s=area * weight[chosen],
                alpha=0.45 + 0.5 * weight[chosen] / weights.max(),
                color=COLOURS[level % len(COLOURS)],
                marker=MARKERS[level % len(MARKERS)],
                linewidths=0,
                zorder=4,
            )


def _show_part(line: Sequence[Axes] | Numbers, places: Numbers, size_px: tuple[int, int]) -> None:
    """Of the image, the part of its proportions around places (N, 2)."""
    size = np.array(size_px, dtype=float)
    low, high = places.min(axis=0).clip(0, size), places.max(axis=0).clip(0, size)
    share = ((high - low) / size).max() * _MARGIN
    shown = size * np.clip(share, _SMALLEST_SHARE, 1)
    left, top = ((low + high - shown) / 2).clip(0, size - shown)
    for axes in line:
        axes.set_xlim(left, left + shown[0])
        axes.set_ylim(top + shown[1], top)


def _draw_input_boxes(line: Sequence[Axes] | Numbers, boxes: Numbers | None, keys: Sequence[Row]) -> list[Row]:
    """Outlines of the queries' boxes, and their rows."""
    if boxes is None:
        return []
    for axes, key in zip(line, keys):
        outline(axes, boxes[key['query']], edgecolor='black', linewidth=1.2, zorder=5)
    return [{'kind': 'box', **key, **corners(boxes[key['query']])} for key in keys]


def _point_rows(points: tuple[Numbers, Numbers, Numbers], keys: Sequence[Row]) -> list[Row]:
    points_px, weights, levels = points
    return [
        {'kind': 'point', **key, 'level': level, 'x': x, 'y': y, 'weight': weight}
        for key, xy, shares in zip(keys, points_px.tolist(), weights.tolist())
        for (x, y), weight, level in zip(xy, shares, levels.tolist())
    ]


def _label_rows(column: Numbers, trace: QueryTrace, queries: Numbers, classes: Sequence[str]) -> list[Row]:
    """What the last layer makes of each query, beside its row."""
    last, rows = trace.layers[-1], []
    for axes, query in zip(column, queries.tolist()):
        label, score = int(last.labels[query]), float(last.scores[query])
        if label >= len(classes):
            raise InputError(
                f'query {query} has label {label}, but there are {len(classes)} class names, from 0 on; give a name '
                'for each class'
            )
        class_lines = wrapped(f'class {classes[label]}')
        row_label(axes, f'query {query}\n{class_lines}\nscore {score:.2f}')
        rows.append({'kind': 'query', 'query': query, 'label': label, 'class': classes[label], 'score': score})
    return rows


def _legend(figure: Figure, trace: QueryTrace, areas: Mapping[float, float]) -> None:
    """The box, and where points are drawn, their levels and the areas of some weights."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color='black', label='anchor, or box of the layer before')]
    mark: dict[str, Any] = {'linestyle': '', 'markeredgewidth': 0}
    for level, label in enumerate(level_names(trace) if areas else []):
        style: dict[str, Any] = {'marker': MARKERS[level % len(MARKERS)], 'color': COLOURS[level % len(COLOURS)]}
        handles.append(Line2D([], [], **mark, **style, label=label))
    for weight, area in areas.items():
        label = f'weight {100 * weight:.2g} %'
        handles.append(Line2D([], [], **mark, marker='o', color='0.4', markersize=area**0.5, label=label))
    columns = min(3, len(handles))
    figure.legend(handles=handles, loc='outside lower center', ncols=columns, frameon=False, fontsize=SMALL_FONT)

"""Edges of boxes as distributions: how sure each decoder layer is of an edge, and where it puts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...evaluation.selection_quality import iou_of
from .chart import Chart, new_figure, plain_axes
from .edges import EDGES, OUTWARDS
from .image_axes import SMALL_FONT, ImageOrArray, Numbers, Row, corners, outline, rgb_of, show_image
from .image_figures import OBJECT_COLOUR
from .refinement import matched_queries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .edges import EdgeDistributions
    from .trace import QueryTrace

_WIDTH, _ROW_HEIGHT = 1000, 470
_TAIL = 0.01  # of a layer's probability, that may lie beyond either end of an axis
_MEAN: dict[str, Any] = {'linestyle': '', 'marker': '^', 'markersize': 9, 'markeredgecolor': 'white', 'clip_on': False}


def edge_chart(
    trace: QueryTrace, image: ImageOrArray, queries: Sequence[int] | Numbers, name: str, classes: Sequence[str]
) -> Chart:
    """For each query its boxes on the image, and the distributions of the four edges after each layer (D-FINE, 4.1).

    Args:
        image: the trace's, (H, W, 3) uint8 RGB or a PIL image.
        queries: (K,) indices, see :func:`.interesting_queries`.
        name: of the chart's files.
        classes: names by label.

    Raises:
        InputError: the decoder refines no distributions, or the image has another size.
    """
    if trace.edges is None:
        raise InputError(
            'its decoder gives boxes, and no distributions of their edges; take a model with a DistributionDecoder'
        )
    pixels, edges = rgb_of(image, trace), trace.edges
    object_of = {int(query): int(object_index) for object_index, query in zip(*matched_queries(trace))}
    figure = new_figure(_WIDTH, _ROW_HEIGHT * len(queries) + 60)
    rows: list[Row] = []
    for line, query in zip(figure.subfigures(len(queries), 1, squeeze=False)[:, 0], map(int, queries)):
        left, right = line.subfigures(1, 2, width_ratios=(2, 3))
        object_index = object_of.get(query)
        truth = None if object_index is None else trace.objects.boxes_px[object_index]
        on = '' if object_index is None else classes[trace.objects.labels[object_index]]
        axes = left.subplots()
        show_image(axes, pixels)
        rows += _draw_boxes(axes, trace, edges, query, truth)
        axes.set_title(_title_of(trace, edges, query, truth, classes, on), fontsize=10)
        rows += _draw_edges(right, edges, query, truth)
    figure.legend(
        handles=_handles(len(trace.layers)), loc='outside lower center', ncols=4, frameon=False, fontsize=SMALL_FONT
    )
    return Chart(name, 'Edges as distributions, layer by layer', _CAPTION, figure, rows)


_CAPTION = (
    'For each edge, the probabilities that each layer gives to distances of the true edge from that of the initial box '
    '(dashed), which all layers refine; a narrow peak is an edge that the layer is sure of, a broad one an edge that '
    'it is not. From layer to layer the mean (triangle), where the layer puts the edge, should move to the true edge, '
    'and the peak should become narrow. Bins are narrow around the initial box and broad far from it, so their '
    'probabilities compare between layers, not along an axis.'
)


def _layer_colour(layer: int, layers: int) -> Any:
    """Blue, later layers darker."""
    import matplotlib

    return matplotlib.colormaps['Blues'](0.35 + 0.6 * layer / max(1, layers - 1))


def _draw_boxes(
    axes: Axes, trace: QueryTrace, edges: EdgeDistributions, query: int, truth: Numbers | None
) -> list[Row]:
    """The boxes of a query, on the part of the image around them."""
    stages = [('initial box', edges.initial_px[query])]
    stages += [(f'layer {number}', layer.boxes_px[query]) for number, layer in enumerate(trace.layers, start=1)]
    if truth is not None:
        outline(axes, truth, edgecolor=OBJECT_COLOUR, linewidth=2, zorder=2)
    for layer, (_, box) in enumerate(stages[1:]):
        outline(axes, box, edgecolor=_layer_colour(layer, len(trace.layers)), linewidth=1.6)
    outline(axes, stages[0][1], edgecolor='black', linewidth=1.2, linestyle='--', zorder=4)
    around = np.array([box for _, box in stages] + ([] if truth is None else [truth]))
    low, high = around[:, :2].min(0), around[:, 2:].max(0)
    margin = 0.25 * float((high - low).max())
    width, height = trace.size_px
    axes.set_xlim(max(0.0, low[0] - margin), min(width, high[0] + margin))
    axes.set_ylim(min(height, high[1] + margin), max(0.0, low[1] - margin))
    return [{'kind': 'box', 'query': query, 'stage': stage, **corners(box)} for stage, box in stages]


def _title_of(
    trace: QueryTrace, edges: EdgeDistributions, query: int, truth: Numbers | None, classes: Sequence[str], on: str
) -> str:
    last = trace.layers[-1]
    title = f'query {query} finds: {classes[last.labels[query]]}, score {last.scores[query]:.2f}'
    if truth is None:
        return f'{title}\nlies on no object'
    before, after = (float(iou_of(boxes[query], truth)) for boxes in (edges.initial_px, last.boxes_px))
    return f'{title}\nlies on: {on}\nIoU {before:.2f} in the initial box, {after:.2f} in the last'


def _draw_edges(figure: Any, edges: EdgeDistributions, query: int, truth: Numbers | None) -> list[Row]:
    """A panel for each edge."""
    grid = figure.subplots(2, 2, sharey=True)
    grid[0, 0].set_ylim(0, 1.08 * float(edges.probabilities[:, query].max()))
    rows: list[Row] = []
    # as they lie in the box: left and right beside each other, top over bottom
    for edge, axes in zip((0, 2, 1, 3), grid.ravel()):
        true_px = None if truth is None else float((truth - edges.initial_px[query])[edge] * OUTWARDS[edge])
        rows += _draw_edge(plain_axes(axes), edges, query, edge, true_px)
        axes.set_title(f'{EDGES[edge]} edge', fontsize=10)
    figure.supxlabel('distance outwards from the edge of the initial box (px)', fontsize=SMALL_FONT)
    figure.supylabel('probability of a bin', fontsize=SMALL_FONT)
    return rows


def _draw_edge(axes: Axes, edges: EdgeDistributions, query: int, edge: int, true_px: float | None) -> list[Row]:
    distances, means = edges.distances_px[query, edge], edges.means_px[:, query, edge]
    probabilities = edges.probabilities[:, query, edge]
    axes.axvline(0, color='black', linewidth=1, linestyle='--', zorder=1)
    if true_px is not None:
        axes.axvline(true_px, color=OBJECT_COLOUR, linewidth=2, zorder=1)
    for layer, (probability, mean) in enumerate(zip(probabilities, means)):
        colour = _layer_colour(layer, len(means))
        axes.plot(distances, probability, color=colour, linewidth=1.5, marker='.', markersize=4, zorder=3)
        axes.plot([mean], [0], color=colour, **_MEAN, zorder=5)
    axes.set_xlim(*_shown(distances, probabilities, [0.0, *means, *([] if true_px is None else [true_px])]))
    axes.tick_params(labelsize=SMALL_FONT)
    axes.tick_params(axis='x', pad=7)  # below the triangles
    key = {'query': query, 'edge': EDGES[edge]}
    rows: list[Row] = [
        {'kind': 'edge', **key, 'layer': layer, 'mean_px': float(mean), 'true_px': true_px}
        for layer, mean in enumerate(means, start=1)
    ]
    return rows + [
        {'kind': 'bin', **key, 'layer': layer, 'distance_px': float(distance), 'probability': float(value)}
        for layer, probability in enumerate(probabilities, start=1)
        for distance, value in zip(distances, probability)
    ]


def _shown(distances: Numbers, probabilities: Numbers, points: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis: all but the tails of every layer, and the points, with a margin."""
    below = probabilities.cumsum(-1)
    first, last = int((below > _TAIL).argmax(-1).min()), int((below >= 1 - _TAIL).argmax(-1).max())
    low, high = min(distances[first], *points), max(distances[last], *points)
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _handles(layers: int) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=OBJECT_COLOUR, linewidth=2, label='object'),
        Line2D([], [], color='black', linewidth=1.2, linestyle='--', label='initial box'),
        *(
            Line2D([], [], color=_layer_colour(layer, layers), linewidth=1.6, label=f'layer {layer + 1}')
            for layer in range(layers)
        ),
        Line2D([], [], color=_layer_colour(layers - 1, layers), **_MEAN, label='mean of a layer'),
    ]

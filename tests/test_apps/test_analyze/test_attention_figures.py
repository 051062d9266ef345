"""Where queries look, as drawn: the weights' own numbers, at their own place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_detector
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from mmdet.structures import DetDataSample
from tolerances import within

from mmdet_iouquery.apps.analyze.attention_figures import (
    attention_chart,
    interesting_queries,
    positional_attention_chart,
    spread_over_image,
)
from mmdet_iouquery.apps.analyze.chart import Chart, save_chart
from mmdet_iouquery.apps.analyze.heat_maps import LEAST_WEIGHT
from mmdet_iouquery.apps.analyze.temperature_figures import ANCHORS, REFERENCE_SIDE, sine_attention, temperature_chart
from mmdet_iouquery.apps.analyze.trace import Objects, QueryTrace, ScoredBoxes, trace
from mmdet_iouquery.errors import InputError

SIZE = (80, 60)
SHAPES = ((6, 8), (3, 4))
IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
OBJECTS = Objects(np.array([[10.0, 10, 30, 30], [40, 20, 80, 60]]), np.array([1, 0]))
BOXES = np.array([[10.0, 10, 30, 20], [40, 20, 80, 60], [60, 0, 70, 10], [50, 30, 90, 70]])
SCORES = np.array([[0.1, 0.6], [0.3, 0.2], [0.9, 0.0], [0.95, 0.05]])
CLASSES = ('person', 'traffic light')


class DenseLayer:
    """Weights of every query, drawn once; by position alone, each query has one cell of the first level."""

    dense = True

    def __init__(self, seed: int = 0, size: int = 60) -> None:
        weights = np.random.default_rng(seed).random((len(BOXES), size))
        self.weights = weights / weights.sum(1, keepdims=True)

    def maps(self, queries: np.ndarray, *, content: bool = True) -> list[np.ndarray]:
        weights = self.weights if content else np.eye(len(BOXES), self.weights.shape[1])
        fine, coarse = weights[queries, :48], weights[queries, 48:]
        return [fine.reshape(-1, 6, 8), coarse.reshape(-1, 3, 4)]


class SamplingLayer:
    """Four points on two levels."""

    dense = False

    def points(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        places = np.random.default_rng(1).random((len(BOXES), 4, 2)) * SIZE
        weights = np.array([[0.4, 0.3, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1], [0.25] * 4, [0.5, 0.5, 0, 0]])
        return places[queries], weights[queries], np.array([0, 0, 1, 1])


def made(layer: type = DenseLayer, **changes: object) -> QueryTrace:
    settings = {
        'image_id': 3,
        'path': '',
        'size_px': SIZE,
        'input_px': (80.0, 60.0),
        'objects': OBJECTS,
        'spatial_shapes': SHAPES,
        'anchors_px': BOXES + 1,
        'tokens': None,
        'encoder': None,
        'layers': (ScoredBoxes(BOXES + 2, SCORES), ScoredBoxes(BOXES, SCORES)),
        'noise': None,
        'attention': (layer(), layer()),
    }
    return QueryTrace(**{**settings, **changes})


def panels(chart: Chart, rows: int, columns: int) -> np.ndarray:
    return np.array(chart.figure.axes[: rows * columns]).reshape(rows, columns)


def box_of(axes: Axes) -> list[float]:
    (box,) = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [*box.get_bbox().extents]


def test_the_best_query_of_each_object_the_biggest_first() -> None:
    """Query 3 is surer of the big object than query 1, but lies worse on it: 0.95 * 900 / 2300 = 0.37 over 0.3 * 1."""
    assert interesting_queries(made(), 5).tolist() == [3, 0]
    assert interesting_queries(made(), 1).tolist() == [3]
    twice = Objects(OBJECTS.boxes_px[[1, 1, 0]], np.array([0, 0, 1]))
    assert interesting_queries(made(objects=twice), 3).tolist() == [3, 1, 0]
    none = Objects(np.zeros((0, 4)), np.zeros(0, int))
    assert interesting_queries(made(objects=none), 2).tolist() == [3, 2]


def test_one_token_lands_on_its_cell_and_nowhere_else() -> None:
    level = np.zeros((1, 3, 4))
    level[0, 1, 2] = 1
    (spread,) = spread_over_image([np.zeros((1, 6, 8)), level], (80, 60), SIZE)
    assert spread.shape == (60, 80)
    assert np.allclose(spread[20:40, 40:60], 1 / 400) and spread.sum() == pytest.approx(1)
    assert np.count_nonzero(spread) == 400


def test_spreading_keeps_the_weight_whatever_the_sizes() -> None:
    maps = DenseLayer().maps(np.arange(4))
    for size in ((80, 60), (37, 101), (5, 3)):  # cells of many px, of broken numbers of them, and of less than one
        spread = spread_over_image(maps, size, size)
        assert spread.shape == (4, size[1], size[0])
        assert np.allclose(spread.sum((1, 2)), 1) and spread.min() >= 0
    x = np.arange(80) + 0.5
    centre = (spread_over_image(maps, (80, 60), SIZE).sum(1) * x).sum(1)
    cells = [(level.sum(1) * (np.arange(level.shape[2]) + 0.5) * 80 / level.shape[2]).sum(1) for level in maps]
    assert np.allclose(centre, sum(cells))


def test_what_lies_in_the_padding_is_not_on_the_image() -> None:
    level = np.full((1, 2, 2), 0.25)
    (spread,) = spread_over_image([level], (160, 60), SIZE)
    assert spread.sum() == pytest.approx(0.5)


def test_heat_maps_and_boxes_of_dense_layers(tmp_path: Path) -> None:
    record, queries = made(), [2, 0]
    chart = attention_chart(record, IMAGE, queries, 'attention', CLASSES)
    grid = panels(chart, 2, 2)
    for layer, boxes in enumerate((BOXES + 1, BOXES + 2)):
        for row, query in enumerate(queries):
            axes = grid[row, layer]
            expected = spread_over_image(record.attention[layer].maps(np.array([query])), (80, 60), SIZE)[0]
            heat = axes.images[1]
            assert np.allclose(heat.get_array(), expected) and heat.get_extent() == [0, 80, 60, 0]
            assert heat.norm.vmin == 0 and heat.norm.vmax == expected.max()
            assert box_of(axes) == [*boxes[query]]
            assert axes.get_xlim() == (0, 80) and axes.get_ylim() == (60, 0)
    assert [axes.get_title() for axes in grid[0]] == ['layer 1', 'layer 2']
    assert grid[0, 0].get_ylabel() == 'query 2\nclass person\nscore 0.90'
    assert grid[1, 0].get_ylabel() == 'query 0\nclass traffic\nlight\nscore 0.60'
    assert all(path.stat().st_size for path in save_chart(chart, tmp_path))


def test_rows_hold_the_weights_down_to_the_least() -> None:
    record = made()
    record.attention[1].weights[0] = LEAST_WEIGHT / 2
    record.attention[1].weights[0, [5, 50]] = 0.6, 0.4
    rows = attention_chart(record, IMAGE, [0], 'attention', CLASSES).rows
    cells = [row for row in rows if row['kind'] == 'cell']
    # 60 cells, of which some are left out
    assert sum(row['weight'] for row in cells if row['layer'] == 1) == pytest.approx(1, abs=60 * LEAST_WEIGHT)
    second = [tuple(row.values())[1:] for row in cells if row['layer'] == 2]
    assert second == [(0, 2, 0, 0, 5, 0.6), (0, 2, 1, 0, 2, 0.4)]  # query, layer, level, row, column, weight
    assert [row['layer'] for row in rows if row['kind'] == 'box'] == [1, 2]
    assert [(row['class'], row['score']) for row in rows if row['kind'] == 'query'] == [('traffic light', 0.6)]


def test_points_of_sampling_layers() -> None:
    record = made(SamplingLayer)
    chart = attention_chart(record, IMAGE, [1, 3], 'attention', CLASSES)
    places, weights, levels = SamplingLayer().points(np.array([1, 3]))
    for row, axes in enumerate(panels(chart, 2, 2)[:, 0]):
        assert [collection.get_offsets().tolist() for collection in axes.collections] == [
            places[row][levels == level].tolist() for level in (0, 1)
        ]
        areas = np.concatenate([collection.get_sizes() for collection in axes.collections])
        assert np.allclose(areas / areas.max(), weights[row] / weights[row].max())
    first, second = (panels(chart, 2, 2)[row, 0].collections[0].get_sizes() for row in (0, 1))
    assert first[0] / second[0] == pytest.approx(0.7 / 0.5)  # one scale for all panels
    drawn = [row for row in chart.rows if row['kind'] == 'point']
    assert len(drawn) == 2 * 2 * 4
    assert [(row['x'], row['y'], row['weight']) for row in drawn[:4]] == [
        (*xy, w) for xy, w in zip(places[0], weights[0])
    ]
    texts = [text.get_text() for text in chart.figure.legends[0].get_texts()]
    assert texts[1:] == ['level 0 (a token every 10 px)', 'level 1 (a token every 20 px)', 'weight 18 %', 'weight 70 %']


@pytest.mark.parametrize(
    ('low', 'high', 'expected'),
    [
        ((30, 20), (50, 30), (28.0, 52.0, 16.0, 34.0)),  # 20 x 10 px and a fifth: 0.3 of both sides
        ((2, 1), (4, 2), (0.0, 20.0, 0.0, 15.0)),  # a quarter of each side at least, inside the image
        ((-5, 40), (90, 70), (0.0, 80.0, 0.0, 60.0)),  # as wide as the image
    ],
)
def test_a_row_shows_what_its_points_and_boxes_extend_over(
    low: tuple[float, float], high: tuple[float, float], expected: tuple[float, ...]
) -> None:
    class Corners(SamplingLayer):
        def points(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            _, weights, levels = super().points(queries)
            return np.array([[low, high, low, high]] * len(queries), float), weights, levels

    inside = np.array([[*low, *low]] * 4, float)
    layers = (ScoredBoxes(inside, SCORES), ScoredBoxes(BOXES, SCORES))  # the last layer's are no layer's input
    chart = attention_chart(made(Corners, anchors_px=inside, layers=layers), IMAGE, [1], 'attention', CLASSES)
    for axes in panels(chart, 1, 2)[0]:
        left, right, top, bottom = expected
        assert axes.get_xlim() == pytest.approx((left, right)) and axes.get_ylim() == pytest.approx((bottom, top))
    wide = made(Corners, anchors_px=BOXES, layers=layers)  # the first layer's input, of query 1, is (40, 20, 80, 60)
    axes = panels(attention_chart(wide, IMAGE, [1], 'attention', CLASSES), 1, 2)[0, 1]
    assert axes.get_xlim()[1] == 80 and axes.get_ylim()[0] == 60


def test_queries_that_are_no_boxes_have_none_in_the_first_layer() -> None:
    grid = panels(attention_chart(made(anchors_px=None), IMAGE, [1], 'attention', CLASSES), 1, 2)
    assert not grid[0, 0].patches and box_of(grid[0, 1]) == [*(BOXES[1] + 2)]


def test_attention_by_position_alone(tmp_path: Path) -> None:
    traces = {'dab': made(), 'rtdetr_r18vd_6x': made(SamplingLayer), 'detr': made(anchors_px=None)}
    queries = {'dab': [0, 3], 'rtdetr_r18vd_6x': [0], 'detr': [2]}
    chart = positional_attention_chart(traces, queries, dict.fromkeys(traces, IMAGE), 'position')
    grid = panels(chart, 2, 2)
    for axes, query in ((grid[0, 0], 0), (grid[0, 1], 3), (grid[1, 0], 2)):
        heat = axes.images[1].get_array()
        assert np.allclose(heat[0:10, 10 * query : 10 * query + 10], 0.01) and heat.sum() == pytest.approx(1)
        assert axes.get_title() == f'query {query}' and box_of(axes) == [*(BOXES[query] + 2)]
    assert not grid[1, 1].get_visible()
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ['dab', 'detr']
    assert 'cannot be read: rtdetr_r18vd_6x.' in chart.caption and 'the last decoder layer' in chart.caption
    cells = [(row['model'], row['query'], row['layer'], row['column']) for row in chart.rows if row['kind'] == 'cell']
    assert cells == [('dab', 0, 2, 0), ('dab', 3, 2, 3), ('detr', 2, 2, 2)]
    assert all(path.stat().st_size for path in save_chart(chart, tmp_path))
    first = positional_attention_chart({'dab': made()}, queries, {'dab': IMAGE}, 'position', layer=0)
    assert box_of(first.figure.axes[0]) == [*(BOXES[0] + 1)]


def test_what_cannot_be_drawn_is_refused_in_a_sentence() -> None:
    both = {'a': made(SamplingLayer), 'b': made(attention=())}
    with pytest.raises(InputError, match='none of a, b has attention by position alone'):
        positional_attention_chart(both, {'a': [0], 'b': [0]}, dict.fromkeys(both, IMAGE), 'none')
    with pytest.raises(
        InputError, match='dab has no dense cross-attention in decoder layer 2; name one of its 2 layers'
    ):
        positional_attention_chart({'dab': made()}, {'dab': [0]}, {'dab': IMAGE}, 'none', layer=2)
    with pytest.raises(InputError, match=r'must be one or more of 0 to 3, got \[4\]'):
        attention_chart(made(), IMAGE, [4], 'none', CLASSES)
    with pytest.raises(InputError, match=r'got \[\]'):
        attention_chart(made(), IMAGE, [], 'none', CLASSES)
    with pytest.raises(InputError, match='of a kind that cannot be read'):
        attention_chart(made(attention=()), IMAGE, [0], 'none', CLASSES)
    with pytest.raises(InputError, match='query 0 has label 1, but there are 1 class names'):
        attention_chart(made(), IMAGE, [0], 'none', CLASSES[:1])
    with pytest.raises(InputError, match='sides above 0'):
        sine_attention((0.5, 0.5, 0.0, 0.1), (4, 4), 20)
    with pytest.raises(InputError, match='one of them is empty'):
        temperature_chart('none', temperatures=())


def entropy(weights: np.ndarray) -> float:
    return float(-(weights * np.log(weights)).sum())


def spread(weights: np.ndarray, axis: int) -> float:
    """Standard deviation along an axis, in cells."""
    marginal = weights.sum(axis=1 - axis)
    at = np.arange(len(marginal))
    return float(np.sqrt((marginal * (at - (marginal * at).sum()) ** 2).sum()))


def test_sine_attention_peaks_at_the_anchor() -> None:
    for row, column in ((3, 10), (12, 2)):
        anchor = ((column + 0.5) / 16, (row + 0.5) / 16, 0.2, 0.4)
        for side in (None, REFERENCE_SIDE):
            weights = sine_attention(anchor, (16, 16), 20, reference_side=side)
            assert np.unravel_index(weights.argmax(), weights.shape) == (row, column)
            assert weights.sum() == pytest.approx(1) and weights.dtype == np.float64


def test_sine_attention_is_the_softmax_of_cosines() -> None:
    """The inner product of two sine codes is a sum of cosines of their distance (DAB-DETR, eq. 6, written out)."""
    anchor, grid, temperature, width = (0.3, 0.6, 0.5, 0.2), (5, 7), 20.0, 32
    frequencies = 2 * np.pi / temperature ** (np.arange(0, width // 2, 2) / (width // 2))
    y, x = ((np.arange(count) + 0.5) / count for count in grid)
    along_x = np.cos((x[:, None] - anchor[0]) * frequencies).sum(1) * 0.25 / anchor[2]
    along_y = np.cos((y[:, None] - anchor[1]) * frequencies).sum(1) * 0.25 / anchor[3]
    expected = np.exp((along_y[:, None] + along_x[None]) / np.sqrt(width))
    actual = sine_attention(anchor, grid, temperature, reference_side=0.25, embed_dims=width)
    assert np.allclose(actual, expected / expected.sum(), **within('sum'))


def test_attention_widens_with_temperature() -> None:
    entropies = [entropy(sine_attention(ANCHORS['square'], (32, 32), t)) for t in (2, 20, 200, 10000)]
    assert entropies == sorted(entropies) and entropies[0] < entropies[-1] - 1
    assert entropies[-1] < np.log(32 * 32)


def test_modulation_follows_the_anchors_shape() -> None:
    def shape(name: str, side: float | None) -> tuple[float, float]:
        weights = sine_attention(ANCHORS[name], (32, 32), 20, reference_side=side)
        return spread(weights, 1), spread(weights, 0)

    x, y = shape('square', None)
    assert x == pytest.approx(y)
    for name in ANCHORS:
        assert shape(name, None) == pytest.approx((x, y))  # size plays no part
    assert shape('square', REFERENCE_SIDE) == pytest.approx((x, y))  # w = h = w_ref
    wide = shape('wide', REFERENCE_SIDE)
    assert wide[0] > x > wide[1] and wide[0] > 1.5 * wide[1]
    assert shape('tall', REFERENCE_SIDE) == pytest.approx(wide[::-1])


def test_temperature_chart_draws_those_maps() -> None:
    chart = temperature_chart('temperature', temperatures=(2, 20), grid=(8, 12))
    grid = panels(chart, 4, 2)
    for axes, temperature in zip(grid[0], (2, 20)):  # one row for all anchors without modulation
        assert np.allclose(axes.images[0].get_array(), sine_attention(ANCHORS['wide'], (8, 12), temperature))
        assert axes.get_title() == f'T = {temperature}' and not axes.patches
        assert axes.get_lines()[0].get_xydata().tolist() == [[0.5, 0.5]]
    for line, name in zip(grid[1:], ANCHORS):
        expected = sine_attention(ANCHORS[name], (8, 12), 20, reference_side=REFERENCE_SIDE)
        assert np.allclose(line[1].images[0].get_array(), expected)
        x, y, w, h = ANCHORS[name]
        assert box_of(line[1]) == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        assert line[1].get_xlabel() == f'highest weight {100 * expected.max():.2g} %'
    shown = [row for row in chart.rows if row['anchor'] == 'any size, not modulated' and row['temperature'] == 20]
    # 96 cells, of which some are left out
    assert sum(row['weight'] for row in shown) == pytest.approx(1, abs=96 * LEAST_WEIGHT)
    assert 'w_ref = h_ref = 0.25' in chart.caption


def test_anchors_of_different_centres_have_rows_of_their_own() -> None:
    anchors = {'left': (0.2, 0.5, 0.1, 0.1), 'right': (0.8, 0.5, 0.1, 0.1)}
    chart = temperature_chart('temperature', anchors, (20,), (8, 8), modulated=(False,))
    assert [axes.images[0].get_array().argmax() % 8 for axes in chart.figure.axes[:2]] == [1, 6]


def test_a_detectors_own_attention() -> None:
    torch.manual_seed(0)
    model = small_detector(bbox_head__decoder={'type': 'DABDecoder', 'num_layers': 2}).eval()
    sample = DetDataSample(metainfo={'img_shape': (60, 80), 'ori_shape': (60, 80), 'scale_factor': (1.0, 1.0)})
    record = trace(
        model, {'inputs': torch.from_numpy(IMAGE.transpose(2, 0, 1).copy()), 'data_samples': sample}, OBJECTS
    )
    queries = interesting_queries(record, 2)
    chart = attention_chart(record, IMAGE, queries, 'attention', 'abcde')
    for column, axes in enumerate(panels(chart, 2, 2)[1]):
        assert axes.images[1].get_array().sum() == pytest.approx(1, abs=0.1)  # the rest is padding
        boxes = record.anchors_px if column == 0 else record.layers[0].boxes_px
        assert box_of(axes) == pytest.approx([*boxes[queries[1]]])
    total = sum(row['weight'] for row in chart.rows if row['kind'] == 'cell')
    assert total == pytest.approx(4, abs=0.01)  # cells below the least weight are left out
    chart = positional_attention_chart({'dab': record}, {'dab': queries}, {'dab': IMAGE}, 'position')
    assert np.allclose(
        chart.figure.axes[0].images[1].get_array(),
        spread_over_image(record.attention[1].maps(queries[:1], content=False), record.input_px, SIZE)[0],
    )


def test_heat_maps_of_large_images_are_drawn_coarser_but_in_place() -> None:
    record = made(size_px=(1600, 1200), input_px=(1600.0, 1200.0))
    chart = positional_attention_chart(
        {'dab': record}, {'dab': [2]}, {'dab': np.zeros((1200, 1600, 3), np.uint8)}, 'large'
    )
    heat = chart.figure.axes[0].images[1]
    assert heat.get_array().shape == (360, 480) and heat.get_extent() == [0, 1600, 1200, 0]
    assert np.allclose(heat.get_array()[:60, 120:180], 1 / 3600) and heat.get_array().sum() == pytest.approx(1)

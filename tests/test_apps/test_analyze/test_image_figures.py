"""What is drawn on an image are the trace's own numbers."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from helpers import small_detector
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import same_color
from matplotlib.patches import Rectangle
from mmdet.structures import DetDataSample
from PIL import Image

from mmdet_iouquery.apps.analyze.chart import save_chart
from mmdet_iouquery.apps.analyze.image_axes import level_names, rgb_of
from mmdet_iouquery.apps.analyze.image_figures import CMAP, OBJECT_COLOUR, denoising_chart, selected_tokens_chart
from mmdet_iouquery.apps.analyze.trace import Noise, Objects, QueryTrace, ScoredBoxes, Tokens, trace
from mmdet_iouquery.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
OBJECTS = Objects(np.array([[10.0, 10, 30, 30], [40, 20, 80, 60]]), np.array([1, 0]))
BOXES = np.array([[10.0, 10, 30, 20], [40, 20, 80, 60], [60, 0, 70, 10], [50, 30, 90, 70]])
SCORES = np.array([[0.1, 0.6], [0.3, 0.2], [0.9, 0.0], [0.05, 0.05]])
IOUS = [200 / 400, 1.0, 0.0, 900 / 2300]  # by hand: the last shares 30 x 30 px of twice 1600


def made(**changes: object) -> QueryTrace:
    """Four queries of three tokens of level 0 and one of level 1, and two denoising queries of each kind."""
    boxes = ScoredBoxes(BOXES, SCORES)
    noise = Noise(
        before_px=np.array([[5.0, 10, 25, 30], [40, 20, 60, 60], [0, 0, 8, 8], [60, 40, 100, 80]]),
        after=ScoredBoxes(np.array([[10.0, 10, 30, 30], [40, 20, 80, 50], [0, 0, 9, 9], [60, 40, 80, 60]]), SCORES),
        truth=np.array([0, 1, 0, 1]),
        positive=np.array([True, True, False, False]),
    )
    tokens = Tokens(np.array([3, 1, 9, 80]), np.array([0, 0, 0, 1]), np.array([[35.0, 5], [15, 5], [15, 15], [50, 30]]))
    settings = {
        'image_id': 3,
        'path': '',
        'size_px': (80, 60),
        'input_px': (80.0, 60.0),
        'objects': OBJECTS,
        'spatial_shapes': ((6, 8), (3, 4)),
        'anchors_px': BOXES + 1,
        'tokens': tokens,
        'encoder': boxes,
        'layers': (boxes, ScoredBoxes(BOXES, SCORES[:, ::-1] / 2)),
        'noise': noise,
    }
    return QueryTrace(**{**settings, **changes})


def points(axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Places and values of an axes' marks."""
    marks = [collection for collection in axes.collections if isinstance(collection, PathCollection)]
    return np.concatenate([mark.get_offsets() for mark in marks]), np.concatenate([mark.get_array() for mark in marks])


def boxes(axes: Axes, *, objects: bool = False) -> list[tuple[list[float], tuple]]:
    """Corners and colour of the boxes drawn, objects or others."""
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [
        ([*patch.get_bbox().extents], patch.get_edgecolor())
        for patch in drawn
        if same_color(patch.get_edgecolor(), OBJECT_COLOUR) == objects
    ]


def by_place(places: np.ndarray, values: np.ndarray) -> dict[tuple[float, ...], float]:
    return {tuple(centre): float(value) for centre, value in zip(places, values)}


def test_tokens_are_drawn_at_their_place_in_the_colours_of_score_and_iou() -> None:
    record = made()
    by_score, by_iou = selected_tokens_chart(record, IMAGE, 'tokens').figure.axes[:2]
    assert by_place(record.tokens.centres_px, [0.6, 0.3, 0.9, 0.05]) == pytest.approx(by_place(*points(by_score)))
    assert by_place(record.tokens.centres_px, IOUS) == pytest.approx(by_place(*points(by_iou)))
    assert by_score.collections[0].get_array().tolist() == [0.3, 0.6, 0.9]  # the highest last, on top
    norms = [
        [(collection.norm.vmin, collection.norm.vmax) for collection in axes.collections] for axes in (by_score, by_iou)
    ]
    assert norms == [[(0.05, 0.9)] * 2, [(0.0, 1.0)] * 2]
    shapes = [collection.get_paths()[0].vertices.shape for collection in by_score.collections]
    assert shapes[0] != shapes[1] and [len(collection.get_offsets()) for collection in by_score.collections] == [3, 1]


def test_boxes_of_highest_score_and_of_the_objects() -> None:
    axes = selected_tokens_chart(made(), IMAGE, 'tokens', boxes=2).figure.axes[2]
    assert axes.get_title() == '2 boxes of highest score'
    colours = [matplotlib.colormaps[CMAP]((score - 0.05) / 0.85) for score in (0.6, 0.9)]
    assert [box for box, _ in boxes(axes)] == [[*BOXES[0]], [*BOXES[2]]]  # the best last, on top
    assert np.allclose([colour for _, colour in boxes(axes)], colours)
    for panel in selected_tokens_chart(made(), IMAGE, 'tokens').figure.axes[:3]:
        assert [box for box, _ in boxes(panel, objects=True)] == OBJECTS.boxes_px.tolist()


def test_an_images_axes_are_px_and_end_at_its_edges() -> None:
    for chart in (selected_tokens_chart(made(), IMAGE, 'a'), denoising_chart(made(), IMAGE, 'b')):
        for axes in chart.figure.axes[:2]:
            assert axes.images[0].get_extent() == [0, 80, 60, 0]
            assert axes.get_xlim() == (0, 80) and axes.get_ylim() == (60, 0) and axes.get_aspect() == 1


def test_rows_hold_every_query(tmp_path: Path) -> None:
    chart = selected_tokens_chart(made(), Image.fromarray(IMAGE), 'tokens', boxes=1)
    queries = [row for row in chart.rows if row['kind'] == 'query']
    assert [row['score'] for row in queries] == [0.6, 0.3, 0.9, 0.05]
    assert [row['iou'] for row in queries] == pytest.approx(IOUS)
    assert [(row['token'], row['level'], row['x'], row['y']) for row in queries[::3]] == [
        (3, 0, 35, 5),
        (80, 1, 50, 30),
    ]
    assert [row['box_drawn'] for row in queries] == [False, False, True, False]
    assert [[row[key] for key in ('x1', 'y1', 'x2', 'y2')] for row in queries] == BOXES.tolist()
    assert [row['label'] for row in chart.rows if row['kind'] == 'object'] == [1, 0]
    assert [path.stat().st_size > 0 for path in save_chart(chart, tmp_path)] == [True] * 4


def test_learned_anchors_stand_for_tokens() -> None:
    chart = selected_tokens_chart(made(tokens=None, encoder=None), IMAGE, 'anchors')
    assert 'come from no encoder token' in chart.caption
    centres = 0.5 * (BOXES[:, :2] + BOXES[:, 2:]) + 1
    assert by_place(centres, [0.3, 0.15, 0.45, 0.025]) == pytest.approx(
        by_place(*points(chart.figure.axes[0]))
    )  # of the last layer
    assert chart.rows[0]['level'] is None and chart.rows[0]['token'] is None
    assert chart.rows[0]['iou'] == pytest.approx(190 / 410)  # 19 x 10 px of 400 + 200 - 190


def test_without_objects_there_is_no_iou() -> None:
    none = Objects(np.zeros((0, 4)), np.zeros(0, int))
    chart = selected_tokens_chart(made(objects=none), IMAGE, 'tokens')
    assert [axes.get_title() for axes in chart.figure.axes[:2]] == [
        'selected tokens, by score',
        '4 boxes of highest score',
    ]
    assert 'IoU' not in chart.caption and {row['iou'] for row in chart.rows} == {None}


def test_levels_are_named_by_the_distance_of_their_tokens() -> None:
    names = level_names(made(input_px=(80.0, 72.0)))
    assert names == ['level 0 (a token every 10 x 12 px)', 'level 1 (a token every 20 x 24 px)']
    assert level_names(made())[0] == 'level 0 (a token every 10 px)'
    legend = selected_tokens_chart(made(), IMAGE, 'tokens').figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [*level_names(made()), 'object']


def test_denoising_boxes_before_and_after() -> None:
    record = made()
    chart = denoising_chart(record, IMAGE, 'noise')
    before, after = chart.figure.axes
    assert [box for box, _ in boxes(before)] == record.noise.before_px.tolist()
    assert [box for box, _ in boxes(after)] == record.noise.after.boxes_px.tolist()
    for axes, drawn in ((before, record.noise.before_px), (after, record.noise.after.boxes_px)):
        lines = [line.get_xydata().tolist() for line in axes.get_lines()]
        targets = [[20, 20], [60, 40], [20, 20], [60, 40]]
        assert lines == [[[*(0.5 * (box[:2] + box[2:]))], target] for box, target in zip(drawn, targets)]
        looks = [(colour, line.get_linestyle()) for (_, colour), line in zip(boxes(axes), axes.get_lines())]
        assert looks[0] == looks[1] and looks[2] == looks[3]
        assert looks[0][0] != looks[2][0] and looks[0][1] != looks[2][1]


def test_denoising_numbers_are_those_of_the_objects_class() -> None:
    rows = denoising_chart(made(), IMAGE, 'noise').rows
    queries = [row for row in rows if row['kind'] == 'denoising query']
    assert [row['score_after'] for row in queries] == [0.6, 0.3, 0.0, 0.05]  # classes 1, 0, 1, 0
    assert [row['iou_before'] for row in queries] == pytest.approx([0.6, 0.5, 0, 400 / 2800])
    assert [row['iou_after'] for row in queries] == pytest.approx([1, 0.75, 0, 0.25])
    means = {(row['stage'], row['positive']): (row['iou'], row['score']) for row in rows if row['kind'] == 'mean'}
    assert means == {
        ('before', True): (pytest.approx(0.55), None),
        ('before', False): (pytest.approx(1 / 14), None),
        ('after', True): (pytest.approx(0.875), pytest.approx(0.45)),
        ('after', False): (pytest.approx(0.125), pytest.approx(0.025)),
    }
    title = denoising_chart(made(), IMAGE, 'noise').figure.axes[1].get_title()
    assert 'positives 0.88, negatives 0.12' in title and 'mean score: positives 0.45' in title


def test_denoising_without_negatives_names_none() -> None:
    noise = made().noise
    first = [0, 1]
    positives = Noise(
        noise.before_px[first], ScoredBoxes(*(x[first] for x in noise.after)), noise.truth[first], noise.positive[first]
    )
    chart = denoising_chart(made(noise=positives), IMAGE, 'noise')
    assert [text.get_text() for text in chart.figure.legends[0].get_texts()] == ['positive, to be restored', 'object']
    assert not [row for row in chart.rows if row.get('positive') is False]


def test_what_cannot_be_drawn_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match='neither encoder tokens nor anchors'):
        selected_tokens_chart(made(tokens=None, encoder=None, anchors_px=None), IMAGE, 'none')
    with pytest.raises(InputError, match='no denoising queries to draw'):
        denoising_chart(made(noise=None), IMAGE, 'none')
    with pytest.raises(InputError, match='the image is 60 x 80 px large, but the queries are those of one of 80 x 60'):
        rgb_of(IMAGE.transpose(1, 0, 2), made())
    with pytest.raises(InputError, match=r'must be \(H, W, 3\) uint8 RGB, got \(60, 80, 3\) float64'):
        rgb_of(IMAGE / 255, made())


def test_equal_scores_have_a_colour() -> None:
    flat = ScoredBoxes(BOXES, np.full((4, 1), 0.5))
    axes = selected_tokens_chart(made(encoder=flat), IMAGE, 'flat').figure.axes[0]
    assert {(collection.norm.vmin, collection.norm.vmax) for collection in axes.collections} == {(0, 1)}


def test_a_detectors_own_queries() -> None:
    torch.manual_seed(0)
    model = small_detector().eval()
    sample = DetDataSample(metainfo={'img_shape': (60, 80), 'ori_shape': (60, 80), 'scale_factor': (1.0, 1.0)})
    data = {'inputs': torch.from_numpy(IMAGE.transpose(2, 0, 1).copy()), 'data_samples': sample}
    record = trace(model, data, OBJECTS)
    chart = selected_tokens_chart(record, IMAGE, 'tokens')
    places, scores = points(chart.figure.axes[0])
    assert by_place(places, scores) == pytest.approx(by_place(record.tokens.centres_px, record.encoder.scores))
    noise = denoising_chart(record, IMAGE, 'noise')
    assert [box for box, _ in boxes(noise.figure.axes[1])] == record.noise.after.boxes_px.tolist()

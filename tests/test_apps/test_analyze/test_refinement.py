"""Which query ends up on which object, and how it gets there."""

from __future__ import annotations

import numpy as np
import pytest

from mmdet_iouquery.apps.analyze.layer_figures import layer_boxes_chart, layer_chart, layer_quantile_chart
from mmdet_iouquery.apps.analyze.refinement import Refinement, matched_queries, refinement, summary
from mmdet_iouquery.apps.analyze.trace import Objects, QueryTrace, ScoredBoxes
from mmdet_iouquery.errors import InputError

TRUTH = np.array([[10.0, 10, 30, 30], [50, 10, 90, 50]])


def moving_trace(*, anchors: bool = True, encoder: bool = True) -> QueryTrace:
    """Queries 2 and 0 come closer to objects 0 and 1 from layer to layer; query 1 goes nowhere."""
    boxes = []
    for far in (8.0, 4.0, 0.0):
        on_0, on_1 = TRUTH[0] + [far, 0, far, 0], TRUTH[1] + [0, 2 * far, 0, 2 * far]
        boxes.append(np.stack([on_1, np.array([100.0, 60, 110, 70]), on_0]))
    scores = [np.array([[0.1, s, 0], [0.9, 0.9, 0.9], [0, 0, s]]) for s in (0.3, 0.5, 0.7)]
    stages = [ScoredBoxes(*stage) for stage in zip(boxes, scores)]
    return QueryTrace(
        image_id=1,
        path='one.jpg',
        size_px=(120, 80),
        input_px=(120.0, 80.0),
        objects=Objects(TRUTH, np.array([2, 1])),
        spatial_shapes=((4, 4),),
        anchors_px=boxes[0] if anchors else None,
        tokens=None,
        encoder=stages[0] if encoder else None,
        layers=tuple(stages[1:]),
        noise=None,
    )


def test_queries_that_end_up_on_objects() -> None:
    objects, queries = matched_queries(moving_trace())
    assert dict(zip(objects.tolist(), queries.tolist())) == {0: 2, 1: 0}


def test_stage_by_stage_by_hand() -> None:
    refined = refinement(moving_trace())
    overlap = [(20 - far) / (20 + far) for far in (8, 4, 0)]  # 20 px wide, moved along x
    assert np.allclose(refined.ious[:, 0], overlap)
    assert np.allclose(refined.ious[:, 1], [(40 - 2 * far) / (40 + 2 * far) for far in (8, 4, 0)])
    assert np.allclose(refined.scores, [[0.3] * 2, [0.5] * 2, [0.7] * 2])
    assert np.allclose(refined.shifts, [[4 / 20, 8 / 40], [4 / 20, 8 / 40]])
    rows = summary(refined.ious)
    assert rows[2] == {'mean': 1.0, 'q10': 1.0, 'q25': 1.0, 'q50': 1.0, 'q75': 1.0, 'q90': 1.0}
    assert rows[0]['q50'] == pytest.approx(np.median(refined.ious[0]))


def test_a_start_without_boxes_or_scores_is_left_out() -> None:
    refined = refinement(moving_trace(anchors=False, encoder=False))
    assert np.isnan(refined.ious[0]).all() and np.isnan(refined.scores[0]).all() and np.isnan(refined.shifts[0]).all()
    assert np.isfinite(refined.ious[1:]).all() and summary(refined.shifts)[0]['mean'] is None
    chart = layer_chart({'learned': refined})
    starts = [row for row in chart.rows if row['layer'] == 0 or (row['quantity'] == 'shifts' and row['layer'] == 1)]
    assert len(starts) == 3 and all(row['mean'] is None for row in starts)


def test_lines_are_drawn_through_the_numbers() -> None:
    refined = Refinement.joined([refinement(moving_trace())] * 3)
    assert refined.ious.shape == (3, 6)
    chart = layer_chart({'a': refined, 'b': refined})
    for axes, quantity in zip(chart.figure.axes, ('ious', 'scores', 'shifts')):
        line = axes.lines[0]
        values = getattr(refined, quantity)
        assert np.allclose(line.get_ydata(), values.mean(1))
        assert line.get_xdata().tolist() == [*range(3 - len(values), 3)]
        means = [row['mean'] for row in chart.rows if row['quantity'] == quantity and row['model'] == 'b']
        assert np.allclose(means, values.mean(1))
    quantiles = layer_quantile_chart('a', refined)
    last = quantiles.figure.axes[1].lines[-1]
    assert np.allclose(last.get_ydata(), 0.7) and len(quantiles.figure.axes[0].lines) == 3


def test_boxes_are_drawn_where_they_are() -> None:
    trace = moving_trace()
    chart = layer_boxes_chart(trace, np.zeros((80, 120, 3), np.uint8), 'model')
    panels = chart.figure.axes[:3]
    assert [axes.get_title() for axes in panels] == ['start', 'layer 1', 'layer 2']
    stages = [trace.anchors_px, *(layer.boxes_px for layer in trace.layers)]
    for axes, boxes in zip(panels, stages):
        drawn = [[*patch.get_xy(), patch.get_width(), patch.get_height()] for patch in axes.patches]
        for truth, box in zip(TRUTH, boxes[[2, 0]]):
            for corners in (truth, box):
                assert [*corners[:2], *(corners[2:] - corners[:2])] in drawn
        assert axes.get_xlim() == (0, 120) and axes.get_ylim() == (80, 0)
    row = next(row for row in chart.rows if row['stage'] == 'layer 1' and row['object'] == 1)
    assert [row[key] for key in ('x1', 'y1', 'x2', 'y2')] == trace.layers[0].boxes_px[0].tolist()
    assert row['query'] == 0 and row['score'] == 0.5


def test_nothing_to_follow_is_said() -> None:
    trace = moving_trace()
    lost = trace.__class__(**{**vars(trace), 'objects': Objects(TRUTH + 1000, np.array([2, 1]))})
    assert refinement(lost).ious.shape == (3, 0)
    with pytest.raises(InputError, match=r'no query of model ends up on an object of one\.jpg'):
        layer_boxes_chart(lost, np.zeros((80, 120, 3), np.uint8), 'model')
    with pytest.raises(InputError, match='nothing to follow'):
        layer_chart({'model': refinement(lost)})

"""The distributions of a box's edges are drawn as they are, and where the box is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from test_refinement import TRUTH, moving_trace

from mmdet_iouquery.apps.analyze.edge_figures import edge_chart
from mmdet_iouquery.apps.analyze.edges import EdgeDistributions, edge_distributions
from mmdet_iouquery.apps.analyze.image_figures import OBJECT_COLOUR
from mmdet_iouquery.apps.analyze.trace import QueryTrace
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.structures import Refinement

IMAGE = np.zeros((80, 120, 3), np.uint8)
CLASSES = ('a', 'b', 'c')
INITIAL = np.array([[48.0, 12, 88, 44], [100, 60, 110, 70], [12, 10, 32, 30]])
BINS = np.array([-1.0, -0.25, 0.0, 0.25, 1.0])  # of a side
PROBABILITIES = np.tile(np.array([[0, 0.25, 0.5, 0.25, 0], [0, 0, 0.5, 0.5, 0]])[:, None, None], (1, 3, 4, 1))


def refined_trace() -> QueryTrace:
    """Three queries; layer 1 leaves every edge where it is, layer 2 moves it outwards by an eighth of the side."""
    sides = np.tile(INITIAL[:, 2:] - INITIAL[:, :2], 2)
    return replace(moving_trace(), edges=EdgeDistributions(INITIAL, sides[..., None] * BINS, PROBABILITIES))


def panels(query: int) -> tuple[Axes, dict[str, Axes]]:
    """The axes of the image and of the four edges."""
    axes = edge_chart(refined_trace(), IMAGE, [query], 'edges', CLASSES).figure.axes
    image, *edges = axes
    return image, {edge.get_title(): edge for edge in edges}


def test_by_hand() -> None:
    """Two bins of equal probability, at 0 and a quarter of the side."""
    corners = torch.full((1, 1, 1, 4, 5), -torch.inf)
    corners[..., 2:4] = 0.0
    refinement = Refinement(
        corners,
        torch.zeros(1, 1, 1, 3),
        torch.tensor([[[[0.5, 0.5, 0.4, 0.2]]]]),
        torch.tensor([-4.0, -1.0, 0.0, 1.0, 4.0]),
        reg_scale=4.0,
    )
    edges = edge_distributions(refinement, lambda boxes: np.array([[30.0, 32, 70, 48]]))
    assert edges.initial_px.tolist() == [[30, 32, 70, 48]]
    assert edges.distances_px[0].tolist() == [[-40, -10, 0, 10, 40], [-16, -4, 0, 4, 16]] * 2
    assert edges.means_px.tolist() == [[[5, 2, 5, 2]]]


def test_lines_are_the_probabilities_over_px() -> None:
    _, edges = panels(2)
    assert set(edges) == {'left edge', 'top edge', 'right edge', 'bottom edge'}
    for axes in edges.values():
        by_size = [line for line in axes.lines if len(line.get_xdata()) == 5]
        assert len(by_size) == 2
        for line, probabilities in zip(by_size, ([0, 0.25, 0.5, 0.25, 0], [0, 0, 0.5, 0.5, 0])):
            assert np.allclose(line.get_xdata(), [-20, -5, 0, 5, 20])  # of a box 20 px wide and high
            assert line.get_ydata().tolist() == probabilities
        means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == '^']
        assert np.allclose(means, [0, 2.5])


def test_the_true_edge_counts_outwards_of_the_initial_box() -> None:
    """Query 2 ends up on the object 10..30 and starts 2 px to the right of it: the left edge must go outwards."""
    _, edges = panels(2)
    for title, expected in (('left edge', 2.0), ('right edge', -2.0), ('top edge', 0.0), ('bottom edge', 0.0)):
        drawn = [line for line in edges[title].lines if same_color(line.get_color(), OBJECT_COLOUR)]
        assert [line.get_xdata()[0] for line in drawn] == [expected]


def test_boxes_are_drawn_on_the_part_of_the_image_around_them() -> None:
    image, _ = panels(0)
    drawn = [[*patch.get_bbox().extents] for patch in image.patches]
    trace = refined_trace()
    expected = [TRUTH[1], *(layer.boxes_px[0] for layer in trace.layers), INITIAL[0]]  # the last on top
    assert drawn == [[*map(float, box)] for box in expected]
    around = np.array(expected)
    margin = 0.25 * (58 - 10)  # of the longer side of them all
    assert image.get_xlim() == (around[:, 0].min() - margin, around[:, 2].max() + margin)
    assert image.get_ylim() == (around[:, 3].max() + margin, max(0, around[:, 1].min() - margin))
    assert (
        'query 0 finds: b, score 0.70\nlies on: b\nIoU 0.73 in the initial box, 1.00 in the last' in image.get_title()
    )


def test_a_query_on_no_object_has_no_true_edge() -> None:
    image, edges = panels(1)
    assert image.get_title().endswith('on no object') and len(image.patches) == 3
    for axes in edges.values():
        assert not [line for line in axes.lines if same_color(line.get_color(), OBJECT_COLOUR)]


def test_rows_hold_every_number() -> None:
    chart = edge_chart(refined_trace(), IMAGE, [2, 0], 'edges', CLASSES)
    kinds = [row['kind'] for row in chart.rows]
    assert [kinds.count(kind) for kind in ('box', 'edge', 'bin')] == [2 * 3, 2 * 4 * 2, 2 * 4 * 2 * 5]
    row = next(row for row in chart.rows if row['kind'] == 'edge' and row['layer'] == 2 and row['edge'] == 'left')
    assert row == {'kind': 'edge', 'query': 2, 'edge': 'left', 'layer': 2, 'mean_px': 2.5, 'true_px': 2.0}
    bins = [row for row in chart.rows if row['kind'] == 'bin' and (row['query'], row['layer']) == (0, 1)]
    assert [row['distance_px'] for row in bins if row['edge'] == 'bottom'] == [-32, -8, 0, 8, 32]


def test_axes_hold_the_points_and_all_but_the_tails() -> None:
    _, edges = panels(2)
    low, high = edges['left edge'].get_xlim()
    margin = 0.04 * (5 + 5)
    assert (low, high) == pytest.approx((-5 - margin, 5 + margin))  # the bins at +-20 px are empty


def test_a_decoder_without_distributions_is_refused() -> None:
    with pytest.raises(InputError, match='gives boxes, and no distributions of their edges'):
        edge_chart(moving_trace(), IMAGE, [0], 'edges', CLASSES)

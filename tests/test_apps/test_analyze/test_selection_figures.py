"""Drawn points and curves are the numbers, and the rows hold them all."""

from __future__ import annotations

import numpy as np
import pytest

from mmdet_iouquery.apps.analyze.selection_figures import selection_chart, threshold_chart
from mmdet_iouquery.evaluation.selection_quality import SelectedQueries, selection_quality


def queries(seed: int, number: int = 40) -> SelectedQueries:
    rng = np.random.default_rng(seed)
    return SelectedQueries(rng.random(number), rng.random(number), rng.random(number) < 0.5, np.arange(number) // 10)


RUNS = {'vanilla': [queries(0), queries(1)], 'IoU-aware': [queries(2), queries(3)]}


def test_every_point_is_drawn_at_its_numbers() -> None:
    chart = selection_chart(RUNS)
    scatter = chart.figure.axes[0]
    for (model, seeds), drawn in zip(RUNS.items(), scatter.collections):
        expected = np.concatenate([np.stack([seed.scores, seed.ious], 1) for seed in seeds])
        assert np.array_equal(np.asarray(drawn.get_offsets()), expected)
        rows = [(row['score'], row['iou']) for row in chart.rows if row['model'] == model]
        assert np.array_equal(np.array(rows), expected)
    colours = {tuple(drawn.get_facecolor()[0][:3]) for drawn in scatter.collections}
    assert len(colours) == 2
    top = chart.figure.axes[1]
    heights = top.patches[0].get_data().values
    assert heights.sum() == pytest.approx(100)
    assert heights[0] == pytest.approx(
        100 * np.mean([*RUNS['vanilla'][0].scores, *RUNS['vanilla'][1].scores] < np.float64(0.02))
    )


def test_a_bar_that_is_the_lowest_of_all_has_a_height() -> None:
    """A logarithmic axis begins at the power of ten below it."""
    rare = SelectedQueries(np.array([0.1] * 73 + [0.5] * 27), np.full(100, 0.3), np.ones(100, bool), np.arange(100))
    _, top, right = selection_chart({'rare': [rare]}).figure.axes
    assert top.get_yscale() == right.get_xscale() == 'log'
    assert top.get_ylim()[0] == 10 and right.get_xlim()[0] == 10  # % of 27 and of 100
    assert 73 < top.get_ylim()[1] < 100 and right.get_xlim()[1] == 110  # just above 100, which is all of them


def test_the_curve_at_half_is_the_tables_share() -> None:
    chart = threshold_chart(RUNS)
    thick = [line for line in chart.figure.axes[0].lines if line.get_linewidth() > 2]
    assert len(thick) == 2 and len(chart.figure.axes[0].lines) == 6
    for (model, seeds), line in zip(RUNS.items(), thick):
        at = int(np.argmin(np.abs(line.get_xdata() - 0.5)))
        shares = [selection_quality(seed).prop_both for seed in seeds]
        assert line.get_ydata()[at] == pytest.approx(np.mean(shares)) and line.get_ydata()[0] == 100
        assert (np.diff(line.get_ydata()) <= 0).all()
        rows = [row for row in chart.rows if row['model'] == model and abs(row['threshold'] - 0.5) < 1e-9]
        assert [row['percent'] for row in rows] == pytest.approx(shares)

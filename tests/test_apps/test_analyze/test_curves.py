"""The figure of learning curves: what is drawn are the numbers that were given."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from PIL import Image

from mmdet_iouquery.apps.analyze.curves import Curve, Line, curves_figure, draw_curves, mean_line

TWO_SEEDS = Curve(
    'two_seeds',
    ap=(Line((10, 20), (0.1, 0.3)), Line((10, 20), (0.2, 0.5))),
    loss=(Line((5, 10), (4.0, 2.0)), Line((5, 10), (6.0, 3.0))),
)
ONE_SEED = Curve('one_seed', ap=(Line((10, 20), (0.0, 0.25)),), loss=(Line((5, 10), (9.0, 8.0)),))


def drawn(axes: Axes) -> dict[str, list[tuple[list[float], list[float]]]]:
    """The data of an axes' lines: by name those of the legend, under '' the thin ones."""
    lines: dict[str, list[tuple[list[float], list[float]]]] = {}
    for line in axes.get_lines():
        name = line.get_label()
        data = list(line.get_xdata()), pytest.approx(list(line.get_ydata()))
        lines.setdefault('' if name.startswith('_') else name, []).append(data)
    return lines


def test_lines_hold_the_means_and_each_seed() -> None:
    ap, loss = curves_figure([TWO_SEEDS, ONE_SEED]).axes
    assert drawn(ap) == {
        '': [([10, 20], [10, 30]), ([10, 20], [20, 50])],
        'two_seeds': [([10, 20], [15, 40])],
        'one_seed': [([10, 20], [0, 25])],
    }
    assert drawn(loss) == {
        '': [([5, 10], [4, 2]), ([5, 10], [6, 3])],
        'two_seeds': [([5, 10], [5, 2.5])],
        'one_seed': [([5, 10], [9, 8])],
    }


def test_axes_and_legend_say_what_is_drawn() -> None:
    figure = curves_figure([TWO_SEEDS, ONE_SEED])
    ap, loss = figure.axes
    assert (ap.get_ylabel(), loss.get_ylabel()) == ('AP on validation (%)', 'training loss')
    assert loss.get_xlabel() == 'training steps'
    assert all(tick == int(tick) for tick in curves_figure([ONE_SEED]).axes[1].get_xticks())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['two_seeds', 'one_seed']
    assert loss.get_title(loc='right') == 'thick: mean over seeds, thin: each seed'
    assert curves_figure([ONE_SEED]).axes[1].get_title(loc='right') == ''


def test_thirty_configs_look_different_in_two_ways() -> None:
    curves = [ONE_SEED._replace(name=f'config_{index}') for index in range(30)]
    lines = curves_figure(curves).axes[0].get_lines()
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}) == 30
    for line, following in zip(lines, lines[1:]):  # neighbours are told apart without colour as well as by colour
        assert line.get_color() != following.get_color()
        assert line._unscaled_dash_pattern != following._unscaled_dash_pattern
        assert line.get_marker() != following.get_marker()


def test_mean_is_over_the_steps_that_all_seeds_have() -> None:
    assert mean_line([Line((1, 2, 3), (1.0, 2.0, 3.0)), Line((2, 3, 4), (4.0, 6.0, 8.0))]) == ((2, 3), (3.0, 4.5))
    assert mean_line([]) == ((), ())


def test_a_missing_value_leaves_a_gap() -> None:
    line = Line.of([(1, 0.5), (2, None), (3, 0.7)])
    assert line.steps == (1, 2, 3) and math.isnan(line.values[1]) and line.values[::2] == (0.5, 0.7)
    (shown,) = curves_figure([Curve('gap', (line,), (line,))]).axes[0].get_lines()
    assert math.isnan(shown.get_ydata()[1]) and shown.get_ydata()[2] == pytest.approx(70)


@pytest.mark.parametrize('count', [1, 12])
def test_figure_is_1000_px_wide(tmp_path: Path, count: int) -> None:
    path = tmp_path / 'new' / 'curves.png'
    draw_curves([ONE_SEED._replace(name=f'rtdetr_r18vd_160_digits_variant_{index}') for index in range(count)], path)
    with Image.open(path) as image:
        assert image.format == 'PNG' and image.width == 1000

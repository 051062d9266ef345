"""AP over what it costs: training time, and the time of a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, NamedTuple

from ..analyze.chart import COLOURS, MARKERS, Chart, new_figure, plain_axes
from .run_results import RunResult
from .times import Times

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Point(NamedTuple):
    """A config: what it costs, and its AP."""

    name: str
    training_minutes: float
    """Of all steps, without loading images and without evaluations."""
    image_ms: float
    ap: float
    """Mean over the seeds, in %."""
    ap_deviation: float | None
    """Sample standard deviation; None: one seed."""


def points(groups: Mapping[str, Sequence[RunResult]], times: Mapping[str, Times]) -> list[Point]:
    """One for each config."""
    plotted = []
    for name, runs in groups.items():
        aps = [100 * (run.final.ap or 0.0) for run in runs]
        minutes = mean(run.steps for run in runs) * times[name].step / 60
        deviation = stdev(aps) if len(aps) > 1 else None
        plotted.append(Point(name, minutes, 1000 * times[name].image, mean(aps), deviation))
    return plotted


def front(costs: Sequence[float], aps: Sequence[float]) -> list[int]:
    """Indices of the points that no other one beats or equals in both, cheapest first (Pareto front)."""
    best: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -aps[i])):
        if not best or aps[index] > aps[best[-1]]:
            best.append(index)
    return best


def trade_off_chart(given: Sequence[Point]) -> Chart:
    """AP over training time and over prediction time, each with its Pareto front."""
    figure = new_figure(1000, 460 + 22 * len(given))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, cost, label in zip(
        panels, ('training_minutes', 'image_ms'), ('training (minutes)', 'prediction of an image (ms)')
    ):
        _draw(axes, given, [getattr(point, cost) for point in given])
        axes.set_xlabel(label)
    panels[0].set_ylabel('AP on validation (%)')
    panels[0].set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside upper left', frameon=False)
    return Chart(
        'trade-off',
        'AP over its cost',
        'Each point is a config after its last step, with the standard deviation over its seeds; the line joins those '
        'that no other one beats in both.',
        figure,
        [point._asdict() for point in given],
    )


def _draw(axes: Axes, given: Sequence[Point], costs: Sequence[float]) -> None:
    best = front(costs, [point.ap for point in given])
    axes.plot([costs[i] for i in best], [given[i].ap for i in best], color='0.6', linewidth=1.2, zorder=1)
    for index, (point, cost) in enumerate(zip(given, costs)):
        axes.errorbar(
            cost,
            point.ap,
            yerr=point.ap_deviation,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=8,
            capsize=3,
            linestyle='none',
            label=point.name,
            clip_on=False,  # a mark at the edge is drawn whole
        )
    axes.margins(0.08)
    axes.set_xlim(left=0)
    plain_axes(axes)

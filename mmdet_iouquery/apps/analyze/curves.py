"""Learning curves of several configs in one figure."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from .chart import COLOURS, LINE_STYLES, MARKERS, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Line(NamedTuple):
    """One run's values over training steps; nan where there is none."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, points: Iterable[tuple[int, float | None]]) -> Line:
        """From pairs of step and value."""
        pairs = [(step, math.nan if value is None else value) for step, value in points]
        return cls(tuple(step for step, _ in pairs), tuple(value for _, value in pairs))


class Curve(NamedTuple):
    """One config: its name and a line for each seed, of AP in [0, 1] and of the training loss."""

    name: str
    ap: tuple[Line, ...]
    loss: tuple[Line, ...]


def mean_line(lines: Sequence[Line]) -> Line:
    """The mean over lines at the steps that all of them have."""
    by_step = [dict(zip(line.steps, line.values)) for line in lines]
    steps = sorted(set.intersection(*map(set, by_step))) if by_step else []
    return Line(tuple(steps), tuple(mean(values[step] for values in by_step) for step in steps))


def draw_curves(curves: Sequence[Curve], path: str | os.PathLike[str]) -> None:
    """Write :func:`curves_figure` to a PNG file of 1000 px width."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    curves_figure(curves).savefig(path, format='png')


def curves_figure(curves: Sequence[Curve]) -> Figure:
    """AP over training steps, and the training loss beneath it.

    A thick line is a config's mean over its seeds, thin ones are the seeds. Configs differ by colour, by dashes and by
    marker.
    """
    legend_rows = math.ceil(len(curves) / _legend_columns(curves))
    figure = new_figure(1000, 640 + 22 * legend_rows)
    ap, loss = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for index, curve in enumerate(curves):
        _draw(ap, index, curve.name, [Line(line.steps, tuple(100 * v for v in line.values)) for line in curve.ap], True)
        _draw(loss, index, curve.name, curve.loss, False)
    ap.set_ylabel('AP on validation (%)')
    loss.set_ylabel('training loss')
    loss.set_xlabel('training steps')
    ap.set_ylim(0, max(1, ap.get_ylim()[1]))  # of no AP at all, the usual limits are fractions of one
    loss.set_xlim(left=0)
    loss.xaxis.get_major_locator().set_params(integer=True)
    figure.align_ylabels((ap, loss))
    if any(len(curve.ap) > 1 for curve in curves):
        loss.set_title('thick: mean over seeds, thin: each seed', loc='right', fontsize='small', color='0.35')
    for axes in (ap, loss):
        plain_axes(axes)
    figure.legend(
        *ap.get_legend_handles_labels(),
        loc='outside upper left',
        ncols=_legend_columns(curves),
        frameon=False,
        handlelength=4,
    )
    return figure


def _legend_columns(curves: Sequence[Curve]) -> int:
    """As many names as fit beside each other in about 125 characters."""
    longest = max((len(curve.name) for curve in curves), default=0)
    return max(1, min(len(curves), 125 // (longest + 10)))


def _draw(axes: Axes, index: int, name: str, lines: Sequence[Line], points: bool) -> None:
    colour = COLOURS[index % len(COLOURS)]
    style = LINE_STYLES[index % len(LINE_STYLES)]
    if len(lines) > 1:
        for line in lines:
            axes.plot(line.steps, line.values, color=colour, linestyle=style, linewidth=0.8, alpha=0.45)
    middle = mean_line(lines)
    marker = MARKERS[index % len(MARKERS)] if points or len(middle.steps) == 1 else None
    axes.plot(
        middle.steps,
        middle.values,
        color=colour,
        linestyle=style,
        linewidth=2.2,
        marker=marker,
        markersize=6,
        clip_on=not points,  # else an AP of 0 shows half a marker
        label=name,
    )

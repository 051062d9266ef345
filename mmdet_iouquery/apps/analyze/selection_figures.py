"""Figures of the quality of selected queries, several models over each other (RT-DETR, figure 6)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...evaluation.selection_quality import THRESHOLD, SelectedQueries, both_above
from .chart import COLOURS, LINE_STYLES, MARKERS, Chart, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Runs = Mapping[str, Sequence[SelectedQueries]]
"""Model to the selected queries of each of its trainings (seeds)."""
_BINS = np.linspace(0, 1, 51)
_TOP = 110.0
"""Per cent, with room for the line at 100."""
_THRESHOLDS = np.linspace(0, 0.95, 20)


def selection_chart(runs: Runs, name: str = 'selection-quality') -> Chart:
    """Score against IoU of every selected query, a colour for each model, with the histogram of each beside it."""
    figure = new_figure(1000, 760)
    grid = figure.add_gridspec(2, 2, width_ratios=(4, 1), height_ratios=(1, 4))
    scatter = plain_axes(figure.add_subplot(grid[1, 0]))
    top, right = figure.add_subplot(grid[0, 0], sharex=scatter), figure.add_subplot(grid[1, 1], sharey=scatter)
    rows: list[dict[str, Any]] = []
    for index, (model, seeds) in enumerate(runs.items()):
        queries = SelectedQueries.joined(seeds)
        colour = COLOURS[index % len(COLOURS)]
        scatter.scatter(
            queries.scores,
            queries.ious,
            s=16,
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            alpha=float(np.clip(5000 / max(1, len(queries.scores)), 0.15, 0.4)),
            linewidths=0,
            rasterized=True,
            label=f'{model} ({len(queries.scores)} queries)',
        )
        style: dict[str, Any] = {'color': colour, 'linestyle': LINE_STYLES[index % len(LINE_STYLES)], 'linewidth': 1.8}
        _marginal(top, queries.scores, 'vertical', style)
        _marginal(right, queries.ious, 'horizontal', style)
        rows += _points(model, seeds)
    scatter.axhline(THRESHOLD, color='0.45', linewidth=1, linestyle=':')
    scatter.axvline(THRESHOLD, color='0.45', linewidth=1, linestyle=':')
    scatter.set(xlim=(0, 1), ylim=(0, 1), xlabel='class score of the selected query', ylabel='IoU with its object')
    top.set_ylabel('queries (%)')
    right.set_xlabel('queries (%)')
    for axes in (plain_axes(top), plain_axes(right)):
        _logarithmic(axes, 'y' if axes is top else 'x')
        axes.tick_params(labelbottom=axes is right, labelleft=axes is top)
    _legend(figure, scatter)
    caption = (
        'Each mark is a query that the selector took: the score that it was taken for, and how well its box fits the '
        'object that it overlaps most. A good selection lies to the upper right, beyond the dotted lines at 0.5. '
        'Above and to the right: how many queries have which score and which IoU (logarithmic).'
    )
    return Chart(name, 'Selected queries: score against IoU', caption, figure, rows)


def threshold_chart(runs: Runs, name: str = 'selection-thresholds') -> Chart:
    """Share of the selected queries whose score and IoU both exceed a threshold, over thresholds."""
    figure = new_figure(1000, 520)
    axes = plain_axes(figure.add_subplot())
    rows: list[dict[str, Any]] = []
    for index, (model, seeds) in enumerate(runs.items()):
        counts = np.stack([both_above(queries, _THRESHOLDS) for queries in seeds])
        shares = 100 * counts / np.array([[len(queries.scores)] for queries in seeds])
        colour, style = COLOURS[index % len(COLOURS)], LINE_STYLES[index % len(LINE_STYLES)]
        if len(seeds) > 1:
            axes.plot(_THRESHOLDS, shares.T, color=colour, linestyle=style, linewidth=0.8, alpha=0.45)
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(_THRESHOLDS, shares.mean(0), color=colour, linestyle=style, linewidth=2.2, marker=marker, label=model)
        for seed, (count, share) in enumerate(zip(counts, shares)):
            rows += [
                {'model': model, 'run': seed, 'threshold': float(t), 'queries': int(n), 'percent': float(p)}
                for t, n, p in zip(_THRESHOLDS, count, share)
            ]
    axes.set(xlim=(0, 1), xlabel='threshold of both score and IoU', ylabel='selected queries above it (%)')
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    thin = ' Thick: the mean of the trainings, thin: each.' if any(len(seeds) > 1 for seeds in runs.values()) else ''
    caption = (
        'How many of the selected queries are both sure and well placed, whatever one calls sure and well placed: the '
        f'higher the curve, the better the selection. At 0.5 it is Prop_both (RT-DETR, table 4).{thin}'
    )
    return Chart(name, 'Selected queries with both score and IoU above a threshold', caption, figure, rows)


def _logarithmic(axes: Any, direction: str) -> None:
    """An axis of percentages, from the power of ten below the lowest bar that is not empty to 100 at most."""
    heights = [value for bar in axes.patches for value in bar.get_data().values if value > 0]
    bottom = 10.0 ** math.floor(math.log10(0.999 * min(heights, default=1.0)))
    axes.set(**{f'{direction}scale': 'log', f'{direction}lim': (bottom, None)})
    limits = axes.get_xlim() if direction == 'x' else axes.get_ylim()
    axes.set(**{f'{direction}lim': (bottom, min(limits[1], _TOP))})
    axis = axes.xaxis if direction == 'x' else axes.yaxis
    axis.set_major_formatter('{x:g}')
    axis.set_minor_formatter('')


def _marginal(axes: Axes, values: Any, orientation: str, style: dict[str, Any]) -> None:
    counts, _ = np.histogram(values, _BINS)
    axes.stairs(100 * counts / max(1, len(values)), _BINS, orientation=orientation, **style)  # type: ignore[arg-type]


def _points(model: str, seeds: Sequence[SelectedQueries]) -> list[dict[str, Any]]:
    return [
        {'model': model, 'run': run, 'image': int(image), 'score': float(score), 'iou': float(iou)}
        for run, queries in enumerate(seeds)
        for image, score, iou in zip(queries.image, queries.scores, queries.ious)
    ]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc='outside upper left', frameon=False, ncols=1)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)

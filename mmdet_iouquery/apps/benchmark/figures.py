"""How the criterion's time grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..analyze.chart import COLOURS, MARKERS, Chart, new_figure, plain_axes

_LABELS = {
    'objects': 'objects an image',
    'queries': 'queries',
    'images': 'images in the batch',
    'layers': 'decoder layers',
}


def growth_chart(name: str, rows: Sequence[Mapping[str, Any]]) -> Chart:
    """One panel for each number that was varied: time over it, a line a side, both axes logarithmic.

    Args:
        name: of the chart's files.
        rows: of :func:`.criterion.criterion`.
    """
    varied = [quantity for quantity in _LABELS if any(row['varied'] == quantity for row in rows)]
    sides = list(dict.fromkeys(row['side'] for row in rows))
    figure = new_figure(1000, 300 * -(-len(varied) // 2) + 40)
    panels = figure.subplots(-(-len(varied) // 2), 2, squeeze=False).flatten()
    for panel in panels[len(varied) :]:
        panel.set_visible(False)
    for panel, quantity in zip(panels, varied):
        plain_axes(panel)
        for side, colour, marker in zip(sides, COLOURS, MARKERS):
            points = [row for row in rows if row['varied'] == quantity and row['side'] == side]
            x, low, median, high = (
                [row[key] * factor for row in points]
                for key, factor in ((quantity, 1), ('low_s', 1000), ('median_s', 1000), ('high_s', 1000))
            )
            panel.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            panel.plot(x, median, color=colour, marker=marker, label=side)
        panel.set(xscale='log', yscale='log', xlabel=_LABELS[quantity], ylabel='ms', xticks=x)
        panel.set_xticks(x, [str(number) for number in x])
        panel.minorticks_off()
    panels[0].legend(frameon=False)
    caption = (
        'Forward and backward of matching and losses; 4 images of 20 objects, 300 queries and 6 layers but for what '
        'varies. Medians, shaded between the quartiles.'
    )
    return Chart(name, 'Time of the criterion', caption, figure, [dict(row) for row in rows])

"""What every figure of an analysis is made of, and how it looks."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .draw import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
COLOURS = (*('#{:02x}{:02x}{:02x}'.format(*PALETTE[index]) for index in (4, 5, 2, 0, 6, 1)), '#404040')
"""For lines and points on white: Okabe and Ito's with grey for yellow, which is lost there; neighbours differ most."""
MARKERS = ('o', 's', '^', 'D', 'v', 'X', 'P', '*')
# Seven colours and five styles have no common factor: 35 lines, each with a pair of its own.
LINE_STYLES = ('-', '--', '-.', ':', (0, (6, 1, 1, 1, 1, 1)))


class Chart(NamedTuple):
    """A figure with what has to be said of it."""

    name: str
    """Stem of its files: letters in lower case, digits and hyphens."""
    title: str
    caption: str
    """A sentence or two on how to read it."""
    figure: Figure
    rows: Sequence[Mapping[str, Any]]
    """Every number drawn, a row each: column to number or text; None where there is none."""


def new_figure(width_px: int, height_px: int, **settings: Any) -> Figure:
    """An empty figure for files, whatever display there is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI, **{'layout': 'constrained', **settings})
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes) -> Axes:
    """A light grid behind the data, and no frame above and to the right of it."""
    axes.grid(True, color='0.9', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    return axes


def save_chart(chart: Chart, folder: str | os.PathLike[str]) -> list[Path]:
    """Write ``NAME.png``, ``NAME.svg``, ``NAME.csv`` and ``NAME.json`` into a folder, which is made if need be.

    The CSV and the JSON file hold ``chart.rows`` to the last digit; a missing number is empty, or null.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f'{chart.name}.{kind}' for kind in ('png', 'svg', 'csv', 'json')]
    png, svg, table, records = paths
    chart.figure.savefig(png, format='png')
    chart.figure.savefig(svg, format='svg', metadata={'Date': None})
    columns = list(dict.fromkeys(column for row in chart.rows for column in row))
    with open(table, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, columns, lineterminator='\n')
        writer.writeheader()
        writer.writerows(chart.rows)
    records.write_text(json.dumps([dict(row) for row in chart.rows], allow_nan=False) + '\n', encoding='utf-8')
    return paths

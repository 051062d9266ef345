"""What charts of attention weights have in common: colours, their bar, labels of rows, and the weights' own rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .image_axes import SMALL_FONT, Numbers, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

LEAST_WEIGHT = 1e-4
"""Share of a map's weight from which on a cell has a row in a chart's tables."""
LABEL_WIDTH = 120
CUT = f'The tables leave out cells of less than {LEAST_WEIGHT:g} of the weight.'


def heat_colours() -> Colormap:
    """From clear to dark: the image shows where there is little weight."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    colours = matplotlib.colormaps['magma_r'](np.linspace(0.15, 0.92, 256))
    colours[:, 3] = np.linspace(0, 1, 256) ** 0.5 * 0.85
    return ListedColormap(colours, 'heat')


def heat_bar(figure: Figure, grid: Numbers) -> None:
    """A bar of the colours beside a grid of axes, from 0 to each panel's highest weight."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    shrink = min(1.0, 1.6 / len(grid))
    scale = ScalarMappable(Normalize(0, 1), heat_colours())
    bar = figure.colorbar(scale, ax=grid.ravel().tolist(), fraction=0.03, pad=0.015, shrink=shrink, aspect=20)
    bar.set_label('share of the highest weight', fontsize=SMALL_FONT)
    bar.ax.tick_params(labelsize=SMALL_FONT)


def cell_rows(maps: Sequence[Numbers], keys: Sequence[Row]) -> list[Row]:
    """Rows of the cells that weigh :data:`LEAST_WEIGHT` or more."""
    return [
        {'kind': 'cell', **keys[index], 'level': number, 'row': row, 'column': column, 'weight': weight}
        for number, level in enumerate(maps)
        for (index, row, column), weight in zip(
            np.argwhere(level >= LEAST_WEIGHT).tolist(), level[level >= LEAST_WEIGHT].tolist()
        )
    ]


def row_label(axes: Axes, text: str) -> None:
    """Upright text to the left of a row's first panel."""
    axes.set_ylabel(text, rotation=0, ha='right', va='center', multialignment='left', fontsize=SMALL_FONT, labelpad=8)


def wrapped(name: str, width: int = 16) -> str:
    """A name in lines of at most so many letters, broken behind spaces, hyphens and underscores where it has any."""
    lines = ['']
    for piece in re.findall(rf'[^\s_-]{{1,{width - 1}}}[\s_-]?|[\s_-]', name):
        if len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append('')
        lines[-1] += piece
    return '\n'.join(line.rstrip() for line in lines)

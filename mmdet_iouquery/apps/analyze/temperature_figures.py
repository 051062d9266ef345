"""Attention of sine codes alone, over their temperature (DAB-DETR, sections 4.4 and 4.5): no model is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...core import sine_anchor_encoding, sine_token_encoding
from ...errors import InputError
from .chart import Chart, new_figure
from .heat_maps import CUT, LABEL_WIDTH, cell_rows, heat_bar, heat_colours, row_label, wrapped
from .image_axes import SMALL_FONT, Numbers, Row, outline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCE_SIDE = 0.25
"""w_ref = h_ref of :func:`temperature_chart`, a share of the image's side."""
ANCHORS = {
    'square': (0.5, 0.5, 0.25, 0.25),
    'wide': (0.5, 0.5, 0.5, 0.125),
    'tall': (0.5, 0.5, 0.125, 0.5),
}
_WIDTH = 1000


def temperature_chart(
    name: str,
    anchors: Mapping[str, Sequence[float]] | None = None,
    temperatures: Sequence[float] = (2, 20, 200, 10000),
    grid: tuple[int, int] = (32, 32),
    modulated: Sequence[bool] = (False, True),
) -> Chart:
    """Attention of anchors by sine codes alone, over temperatures (columns): DAB-DETR, sections 4.4 and 4.5.

    Rows are anchors with width-height modulation, and their centres without it, where size plays no part.

    Args:
        name: of the chart's files.
        anchors: cx, cy, w, h in [0, 1] by name; None: :data:`ANCHORS`, a square, a wide and a tall one.
        temperatures: of the codes of anchors and cells alike.
        grid: height and width in cells.
        modulated: whether to show maps without modulation, with it, or both.

    Raises:
        InputError: no anchors, no temperatures, or an anchor that is no box.
    """
    anchors = ANCHORS if anchors is None else anchors
    if not anchors or not temperatures or not modulated:
        raise InputError(
            'temperature_chart needs an anchor, a temperature and whether to modulate; one of them is empty'
        )
    kinds = _kinds(anchors, modulated)
    panel = (_WIDTH - 2 * LABEL_WIDTH) / len(temperatures)
    figure = new_figure(_WIDTH, round(len(kinds) * (panel * grid[0] / grid[1] + 28)) + 60, layout='compressed')
    axes_grid = figure.subplots(len(kinds), len(temperatures), squeeze=False)
    rows: list[Row] = []
    for line, (label, anchor, side) in zip(axes_grid, kinds):
        row_label(line[0], wrapped(label))
        for axes, temperature in zip(line, temperatures):
            weights = sine_attention(anchor, grid, temperature, reference_side=side)
            _draw_grid(axes, weights, anchor, side is not None)
            axes.set_title(f'T = {temperature:g}', fontsize=SMALL_FONT)
            axes.set_xlabel(f'highest weight {100 * weights.max():.2g} %', fontsize=SMALL_FONT)
            keys = {
                'anchor': label,
                'temperature': temperature,
                **dict(zip(('cx', 'cy', 'w', 'h'), map(float, anchor))),
            }
            rows += cell_rows([weights[None]], [keys])
    heat_bar(figure, axes_grid)
    caption = (
        'Of the codes alone, which are the same in every model that has them; nothing here is learned. '
        f"Weights over {grid[0]} x {grid[1]} cells, from the inner product of the sine codes of the anchor's centre "
        'and of each cell at temperature T, over the square root of their 256 channels. Modulated: the half for x '
        f'times w_ref / w, that for y times h_ref / h, with w_ref = h_ref = {REFERENCE_SIDE}. Colours run from 0 to '
        f'the highest weight of each panel. {CUT}'
    )
    return Chart(name, 'Attention of sine codes over temperature', caption, figure, rows)


def sine_attention(
    anchor: Sequence[float],
    grid: tuple[int, int],
    temperature: float,
    *,
    reference_side: float | None = None,
    embed_dims: int = 256,
) -> Numbers:
    """Attention of an anchor to a grid's cells by their sine codes: weights (h, w) that sum to 1.

    A softmax of the codes' inner products over the square root of ``embed_dims``; with a reference side, the half for x
    counts ``reference_side / w`` times and that for y ``reference_side / h`` times (DAB-DETR, eq. 6). Anchor and cells
    share one temperature here.

    Args:
        anchor: cx, cy, w, h in [0, 1].
        grid: height and width in cells.
        reference_side: w_ref = h_ref in [0, 1]; None: not modulated.
        embed_dims: channels of a centre's code, a multiple of 4.

    Raises:
        InputError: a side of the anchor, the grid or the temperature is not above 0.
    """
    if len(anchor) != 4 or min(anchor[2:]) <= 0 or min(grid) < 1 or temperature <= 0:
        raise InputError(
            f'an anchor needs cx, cy, w, h with sides above 0, and grid and temperature must be above 0; got '
            f'{tuple(anchor)}, {grid}, {temperature}'
        )
    query = sine_anchor_encoding(torch.tensor(anchor, dtype=torch.float32), embed_dims, temperature=temperature)
    query = query[:embed_dims].double()
    if reference_side is not None:
        by_y, by_x = reference_side / anchor[3], reference_side / anchor[2]
        query = query * torch.tensor([by_y, by_x], dtype=torch.float64).repeat_interleave(embed_dims // 2)
    tokens = sine_token_encoding([grid], embed_dims, temperature=temperature)[0].double()
    return (tokens @ query / embed_dims**0.5).softmax(0).unflatten(0, grid).numpy()


def _kinds(
    anchors: Mapping[str, Sequence[float]], modulated: Sequence[bool]
) -> list[tuple[str, Sequence[float], float | None]]:
    """Label, anchor and reference side of each row of :func:`temperature_chart`."""
    kinds: dict[tuple[Any, ...], tuple[str, Sequence[float], float | None]] = {}
    for modulate in modulated:
        for label, anchor in anchors.items():
            if modulate:
                kinds[(label,)] = (f'{label}, modulated', anchor, REFERENCE_SIDE)
            else:  # one map for all anchors of a centre
                kinds.setdefault(tuple(anchor[:2]), ('any size, not modulated', anchor, None))
    return list(kinds.values())


def _draw_grid(axes: Axes, weights: Numbers, anchor: Sequence[float], sized: bool) -> None:
    """A map over the unit square, with the anchor, or its centre where its size plays no part."""
    axes.imshow(weights, cmap=heat_colours(), vmin=0, vmax=weights.max(), extent=(0, 1, 1, 0), interpolation='nearest')
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color('0.6')
    x, y, w, h = anchor
    if sized:
        outline(axes, np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]), edgecolor='black')
    else:
        axes.plot(x, y, marker='+', color='white', markersize=9)

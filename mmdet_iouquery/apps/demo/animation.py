"""What queries go through from layer to layer, as one SVG that moves by itself, without a script.

Coordinates are px of the image. Q queries.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..analyze.draw import colour_of
from ..analyze.trace import Numbers, QueryTrace
from .model import Look
from .overlay import names_of, stages, token_colour, token_scores

HOLD_S, MOVE_S = 0.9, 0.6
"""Seconds that boxes stand in a stage, and that they take to the next."""
MOST = 40
"""Queries drawn, the best of the last layer."""
_LARGE_SIDE = 1280  # px of the image inside
_EASE = '0.4 0 0.2 1'  # as CSS's cubic-bezier: slow at both ends


class Stage(NamedTuple):
    """Where the queries that are followed stand."""

    name: str
    boxes_px: Numbers
    """(Q, 4)."""
    scores: Numbers
    """(Q,) in [0, 1]."""
    texts: list[str]
    """Class and score of each; empty where it has none yet."""


def followed(trace: QueryTrace, threshold: float) -> Numbers:
    """(Q,) int: the queries that end with a score of at least ``threshold``, best first, at most :data:`MOST`."""
    scores = trace.layers[-1].scores
    order = np.argsort(-scores, kind='stable')
    return order[scores[order] >= threshold][:MOST]


def animation_stages(trace: QueryTrace, queries: Numbers, classes: Sequence[str]) -> list[Stage]:
    """From where the queries begin, a token's centre or an anchor, over the encoder to the last decoder layer.

    Args:
        queries: (Q,) int.
        classes: names by label; empty where nobody knows them.
    """
    shown = []
    scores, texts = np.full(len(queries), 0.5), [''] * len(queries)
    if trace.tokens is not None:
        shown.append(Stage('token', np.tile(trace.tokens.centres_px[queries], 2), scores, texts))
    elif trace.anchors_px is not None:
        shown.append(Stage('anchor', trace.anchors_px[queries], scores, texts))
    for name, boxes in stages(trace).items():
        names = names_of(boxes, classes)
        texts = [f'{names[boxes.labels[query]]} {boxes.scores[query]:.2f}' for query in queries]
        shown.append(Stage(name, boxes.boxes_px[queries], boxes.scores[queries], texts))
    return shown


def stage_times(count: int) -> list[float]:
    """Seconds after the start at which each of ``count`` stages begins to stand."""
    return [number * (HOLD_S + MOVE_S) for number in range(count)]


def layer_animation(look: Look, threshold: float) -> str:
    """An SVG of the image with the queries' boxes going from stage to stage, over and over.

    Dots are the tokens that became queries; a thin line leads from each box to its own.

    Args:
        look: with a trace.
        threshold: of the last layer's score, in [0, 1].
    """
    trace = look.trace
    assert trace is not None
    queries = followed(trace, threshold)
    shown = animation_stages(trace, queries, look.classes)
    clock = _Clock(len(shown))
    width, height = trace.size_px
    unit = max(width, height) / 36
    colours = ['rgb({},{},{})'.format(*colour_of(label)) for label in trace.layers[-1].labels[queries]]
    rows = [*reversed(range(len(queries)))]  # the best come last, on top
    tethers = [_tether(clock, shown, row, colours[row], unit) for row in rows if trace.tokens is not None]
    boxes = [_box(clock, shown, row, colours[row], unit) for row in rows]
    lines = _free_lines(shown[-1].boxes_px, unit)
    labels = [_label(clock, shown, row, lines[row], unit) for row in rows]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 2 * unit:.2f}" role="img" '
        f'aria-label="boxes of {len(queries)} queries from layer to layer" font-family="system-ui, sans-serif" '
        f'font-size="{unit:.2f}"><image href="{data_uri(look.image)}" width="{width}" height="{height}"/>'
        f'{"".join(tethers)}{_tokens(trace, unit)}{"".join([*boxes, *labels])}'
        f'{_captions(clock, shown, trace.size_px, unit)}</svg>'
    )


def player(look: Look, threshold: float, caption: str = '') -> str:
    """The animation as HTML, with a button that stops it and one for each stage.

    Args:
        look: with a trace.
        threshold: of the last layer's score, in [0, 1].
        caption: over it.
    """
    trace = look.trace
    assert trace is not None
    names = [stage.name for stage in animation_stages(trace, followed(trace, threshold), look.classes)]
    svg = "const svg = this.closest('figure').querySelector('svg');"
    toggle = (
        f"{svg} if (svg.animationsPaused()) {{ svg.unpauseAnimations(); this.textContent = 'Pause' }} "
        "else { svg.pauseAnimations(); this.textContent = 'Play' }"
    )
    buttons = [f'<button type="button" class="toggle" onclick="{toggle}">Pause</button>']
    for name, time in zip(names, stage_times(len(names))):
        jump = (
            f'{svg} svg.pauseAnimations(); svg.setCurrentTime({time + HOLD_S / 2:.2f}); '
            "this.closest('figure').querySelector('.toggle').textContent = 'Play'"
        )
        buttons.append(f'<button type="button" onclick="{jump}">{escape(name)}</button>')
    named = f'<figcaption>{escape(caption)}</figcaption>' if caption else ''
    return f'<figure>{named}{layer_animation(look, threshold)}<div>{"".join(buttons)}</div></figure>'


class _Clock:
    """Times of ``count`` stages, as SVG has them: shares of one round."""

    def __init__(self, count: int) -> None:
        starts = stage_times(count)
        self._seconds = starts[-1] + 2 * HOLD_S  # the result stands longer
        ends = [*(start + HOLD_S for start in starts[:-1]), self._seconds]
        self._times = [time for both in zip(starts, ends) for time in both]
        self._changes = [0.0, *(start - MOVE_S / 2 for start in starts[1:])]

    def moving(self, attribute: str, values: Sequence[float]) -> str:
        """An attribute that keeps a value in each stage, and goes smoothly from one to the next."""
        return self._smooth('animate', f'attributeName="{attribute}"', [f'{value:.2f}' for value in values])

    def travelling(self, points: Sequence[Sequence[float]]) -> str:
        """The same of an element's place."""
        values = [f'{x:.2f},{y:.2f}' for x, y in points]
        return self._smooth('animateTransform', 'attributeName="transform" type="translate"', values)

    def only_in(self, stage: int) -> str:
        """For an element that is seen in one stage alone."""
        opacities = ';'.join(str(int(number == stage)) for number in range(len(self._changes)))
        return self._element('animate', 'attributeName="opacity" calcMode="discrete"', opacities, self._changes)

    def _smooth(self, element: str, attributes: str, values: Sequence[str]) -> str:
        eases = ';'.join([_EASE] * (len(self._times) - 1))
        attributes = f'{attributes} calcMode="spline" keySplines="{eases}"'
        return self._element(element, attributes, ';'.join(f'{value};{value}' for value in values), self._times)

    def _element(self, element: str, attributes: str, values: str, times: Sequence[float]) -> str:
        shares = ';'.join(f'{time / self._seconds:.5f}' for time in times)
        return (
            f'<{element} {attributes} values="{values}" keyTimes="{shares}" dur="{self._seconds:.2f}s" '
            'repeatCount="indefinite"/>'
        )


def _box(clock: _Clock, shown: Sequence[Stage], row: int, colour: str, unit: float) -> str:
    """A box with a dark edge, the fainter the lower its score."""
    x1, y1, x2, y2 = _sides(shown, row)
    moves = [('x', x1), ('y', y1), ('width', x2 - x1), ('height', y2 - y1)]
    sides = ''.join(clock.moving(*move) for move in moves)
    rects = [
        f'<rect stroke="{stroke}" stroke-width="{width * unit:.2f}">{sides}</rect>'
        for stroke, width in (('#111', 0.26), (colour, 0.16))
    ]
    fading = clock.moving('opacity', [0.3 + 0.7 * float(stage.scores[row]) for stage in shown])
    return f'<g fill="none">{fading}{"".join(rects)}</g>'


def _tether(clock: _Clock, shown: Sequence[Stage], row: int, colour: str, unit: float) -> str:
    """A line from the middle of a box to the token that it comes from."""
    x1, y1, x2, y2 = _sides(shown, row)
    middle = clock.moving('x2', (x1 + x2) / 2) + clock.moving('y2', (y1 + y2) / 2)
    start = f'x1="{x1[0]:.2f}" y1="{y1[0]:.2f}"'
    return f'<line {start} stroke="{colour}" stroke-width="{0.08 * unit:.2f}">{middle}</line>'


def _free_lines(boxes_px: Numbers, unit: float) -> list[int]:
    """How many lines each label stands lower than it would, so that those of boxes on one object can all be read."""
    lines: list[int] = []
    for row, (x, y) in enumerate(boxes_px[:, :2]):
        near = (np.abs(boxes_px[:row, 0] - x) < 4 * unit) & (np.abs(boxes_px[:row, 1] - y) < unit)
        taken = {lines[other] for other in np.flatnonzero(near)}
        lines.append(next(line for line in range(row + 1) if line not in taken))
    return lines


def _label(clock: _Clock, shown: Sequence[Stage], row: int, line: int, unit: float) -> str:
    """Class and score over the box, or ``line`` lines below that, inside the image's upper edge."""
    x1, y1, _, _ = _sides(shown, row)
    texts = [
        '<text opacity="0" font-weight="600" fill="#fff" stroke="#111" paint-order="stroke" stroke-linejoin="round" '
        f'stroke-width="{0.2 * unit:.2f}">{escape(stage.texts[row])}{clock.only_in(number)}</text>'
        for number, stage in enumerate(shown)
        if stage.texts[row]
    ]
    points = [(max(x, 0.0), max(y - 0.3 * unit, unit) + 1.1 * unit * line) for x, y in zip(x1, y1)]
    return f'<g>{clock.travelling(points)}{"".join(texts)}</g>'


def _tokens(trace: QueryTrace, unit: float) -> str:
    """A dot for each token that became a query: larger on coarser levels, the lighter the higher its score."""
    if trace.tokens is None:
        return ''
    scores = token_scores(trace)
    dots = []
    for query in np.argsort(scores, kind='stable'):
        x, y = trace.tokens.centres_px[query]
        colour = 'rgb({},{},{})'.format(*token_colour(scores[query] / scores.max()))
        radius = (0.12 + 0.06 * int(trace.tokens.level[query])) * unit
        dots.append(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.2f}" fill="{colour}"/>')
    return f'<g stroke="#fff" stroke-width="{0.03 * unit:.2f}" opacity="0.8">{"".join(dots)}</g>'


def _captions(clock: _Clock, shown: Sequence[Stage], size_px: tuple[int, int], unit: float) -> str:
    """A bar under the image with the names of the stages, the present one marked."""
    width, height = size_px
    step = width / len(shown)
    marks = []
    for number, stage in enumerate(shown):
        position = f'x="{(number + 0.5) * step:.2f}" y="{height + 1.35 * unit:.2f}" text-anchor="middle"'
        name = escape(stage.name)
        marks.append(
            f'<text {position} fill="#999">{name}</text>'
            f'<g opacity="0"><rect x="{number * step:.2f}" y="{height}" width="{step:.2f}" height="{2 * unit:.2f}" '
            f'fill="#eee"/><text {position} fill="#111">{name}</text>{clock.only_in(number)}</g>'
        )
    return f'<rect y="{height}" width="{width}" height="{2 * unit:.2f}" fill="#222"/>{"".join(marks)}'


def _sides(shown: Sequence[Stage], row: int) -> Numbers:
    """x1, y1, x2, y2 of one query, (4, stages)."""
    return np.stack([stage.boxes_px[row] for stage in shown]).T


def data_uri(image: Image.Image) -> str:
    """The image as JPEG inside an address, reduced where it is large."""
    image = image.copy()
    image.thumbnail((_LARGE_SIDE, _LARGE_SIDE))
    content = io.BytesIO()
    image.save(content, 'JPEG', quality=90)
    return f'data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode("ascii")}'

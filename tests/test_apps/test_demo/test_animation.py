"""The animation's numbers are the trace's: where each box stands in each stage, when, and what is written at it."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from demo_cases import GREY, HEIGHT, NAMES, WIDTH, made_trace
from PIL import Image

from mmdet_iouquery.apps.analyze.trace import QueryTrace
from mmdet_iouquery.apps.demo.animation import HOLD_S, animation_stages, followed, layer_animation, player, stage_times
from mmdet_iouquery.apps.demo.model import Look
from mmdet_iouquery.apps.demo.overlay import stages

SVG = '{http://www.w3.org/2000/svg}'


def look_of(trace: QueryTrace, classes: tuple[str, ...] = NAMES) -> Look:
    return Look(GREY, stages(trace), trace, classes)


def parsed(trace: QueryTrace, threshold: float, classes: tuple[str, ...] = NAMES) -> ElementTree.Element:
    return ElementTree.fromstring(layer_animation(look_of(trace, classes), threshold))


def value_at(element: Any, attribute: str, time: float) -> str:
    """What an animated attribute is, at a time when it stands still."""
    (animation,) = (child for child in element if child.get('attributeName') == attribute)
    seconds = float(animation.get('dur').rstrip('s'))
    shares = [float(share) for share in animation.get('keyTimes').split(';')]
    values = animation.get('values').split(';')
    assert shares[0] == 0 and shares == sorted(shares) and len(shares) == len(values)
    last = max(number for number, share in enumerate(shares) if share * seconds <= time + 1e-3)
    if animation.get('calcMode') == 'spline':
        assert shares[-1] == 1 and len(animation.get('keySplines').split(';')) == len(values) - 1
        assert last + 1 == len(values) or values[last] == values[last + 1], 'it moves'
    return values[last]


def box_at(group: Any, time: float) -> list[float]:
    rect = group.find(f'{SVG}rect')
    x, y, width, height = (float(value_at(rect, side, time)) for side in ('x', 'y', 'width', 'height'))
    return [x, y, x + width, y + height]


def test_the_queries_that_end_above_the_threshold_are_followed() -> None:
    trace = made_trace()
    assert followed(trace, 0.5).tolist() == [0] and followed(trace, 0.4).tolist() == [0, 1]
    assert followed(trace, 0.95).tolist() == []


def test_each_stages_boxes_stand_where_its_numbers_are() -> None:
    trace = made_trace()
    drawing = parsed(trace, 0.3)
    groups = [group for group in drawing.iter(f'{SVG}g') if group.get('fill') == 'none']
    assert len(groups) == 2
    shown = animation_stages(trace, followed(trace, 0.3), NAMES)
    assert [stage.name for stage in shown] == ['token', 'encoder', 'layer 1', 'result']
    for start, stage in zip(stage_times(4), shown):
        for group, row in zip(reversed(groups), range(2)):  # the best is drawn last
            for time in (start, start + HOLD_S - 0.01):
                assert np.allclose(box_at(group, time), stage.boxes_px[row], atol=0.011)  # px: two decimals are written
                assert float(value_at(group, 'opacity', time)) == pytest.approx(
                    0.3 + 0.7 * stage.scores[row],
                    abs=0.006,  # two decimals are written
                )
    x, y = trace.tokens.centres_px[0]  # boxes begin as points
    assert np.allclose(box_at(groups[-1], 0.0), [x, y, x, y])


def test_one_text_is_seen_at_a_time_and_says_class_and_score() -> None:
    drawing = parsed(made_trace(), 0.5)
    (group,) = (g for g in drawing.iter(f'{SVG}g') if g.find(f'{SVG}animateTransform') is not None)
    texts = group.findall(f'{SVG}text')
    assert [text.text for text in texts] == ['bee 0.90'] * 3
    for number, start in enumerate(stage_times(4)):
        seen = [value_at(text, 'opacity', start + HOLD_S / 2) for text in texts]
        assert seen == [str(int(number == stage)) for stage in (1, 2, 3)]


def test_captions_say_the_stage() -> None:
    drawing = parsed(made_trace(), 0.5)
    marks = [g for g in drawing.findall(f'{SVG}g') if g.get('opacity') == '0']
    names = [mark.find(f'{SVG}text').text for mark in marks]  # type: ignore[union-attr]
    assert names == ['token', 'encoder', 'layer 1', 'result']
    for number, start in enumerate(stage_times(4)):
        assert [value_at(mark, 'opacity', start) for mark in marks] == [str(int(n == number)) for n in range(4)]


def test_dots_and_lines_are_at_the_tokens() -> None:
    trace = made_trace()
    drawing = parsed(trace, 0.5)
    dots = {
        (float(dot.get('cx', '')), float(dot.get('cy', ''))): float(dot.get('r', ''))
        for dot in drawing.iter(f'{SVG}circle')
    }
    (fine, coarse) = (tuple(centre) for centre in trace.tokens.centres_px.tolist())
    assert set(dots) == {fine, coarse} and dots[coarse] > dots[fine]
    (line,) = drawing.iter(f'{SVG}line')
    assert (float(line.get('x1', '')), float(line.get('y1', ''))) == fine
    assert float(value_at(line, 'x2', 0)) == fine[0] and float(value_at(line, 'x2', stage_times(4)[-1])) == 40
    without = parsed(replace(trace, tokens=None), 0.5)
    assert not [*without.iter(f'{SVG}circle')] and not [*without.iter(f'{SVG}line')]


def test_queries_without_tokens_begin_at_their_anchors_or_in_the_first_layer() -> None:
    trace = replace(made_trace(), tokens=None, encoder=None)
    names = [stage.name for stage in animation_stages(trace, followed(trace, 0.5), NAMES)]
    assert names == ['anchor', 'layer 1', 'result']
    names = [stage.name for stage in animation_stages(replace(trace, anchors_px=None), followed(trace, 0.5), NAMES)]
    assert names == ['layer 1', 'result']


def test_the_image_is_inside_and_names_cannot_break_out() -> None:
    drawing = parsed(made_trace(), 0.5, ('<ant>', '"bee"&'))
    image = drawing.find(f'{SVG}image')
    assert image is not None
    with Image.open(io.BytesIO(base64.b64decode(image.get('href', '').split(',')[1]))) as inside:
        assert inside.size == (WIDTH, HEIGHT) and inside.format == 'JPEG'
    assert '"bee"& 0.90' in [text.text for text in drawing.iter(f'{SVG}text')]
    assert 'http' not in layer_animation(look_of(made_trace()), 0.5).replace('http://www.w3.org/2000/svg', '')


def test_the_player_has_a_button_for_each_stage() -> None:
    figure = ElementTree.fromstring(player(look_of(made_trace()), 0.5, 'a & b'))
    assert [button.text for button in figure.iter('button')] == ['Pause', 'token', 'encoder', 'layer 1', 'result']
    assert figure.findtext('figcaption') == 'a & b'

"""What is drawn stands where the trace's numbers say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from demo_cases import GREY, HEIGHT, NAMES, WIDTH, made_trace, scored
from PIL import Image

from mmdet_iouquery.apps.analyze.draw import Box, View, colour_of, side_by_side_views
from mmdet_iouquery.apps.analyze.trace import ScoredBoxes
from mmdet_iouquery.apps.demo.overlay import detections, draw_overlay, names_of, stages, token_colour


def extent(drawing: Image.Image, colour: tuple[int, int, int], below: int = 0) -> tuple[int, int, int, int]:
    """First and last column and row, x1, y1, x2, y2, of a colour, from a row on."""
    ys, xs = np.nonzero((np.asarray(drawing)[below:] == colour).all(-1))
    return int(xs.min()), int(ys.min()) + below, int(xs.max()), int(ys.max()) + below


def view() -> View:
    shown, _ = side_by_side_views(WIDTH, HEIGHT)
    return replace(shown, left=0, top=0)


def test_a_threshold_shows_exactly_what_scores_at_least_that() -> None:
    scores = np.random.default_rng(0).random((50, 3)).round(2)
    boxes = ScoredBoxes(np.tile([1.0, 2.0, 3.0, 4.0], (50, 1)), scores)
    for threshold in (0.0, 0.5, float(scores.max(1)[7]), 1.0):
        shown = detections(boxes, (WIDTH, HEIGHT), threshold)
        expected = sorted((s for s in scores.max(1).tolist() if s >= threshold), reverse=True)
        assert [box.score for box in shown] == expected
    assert detections(boxes, (WIDTH, HEIGHT), 0.0)[0].label == scores[scores.max(1).argmax()].argmax()


def test_boxes_are_cut_at_the_image() -> None:
    (box,) = detections(scored(((-5.0, 10.0, 300.0, 400.0), 0.2, 0.7)), (WIDTH, HEIGHT), 0.5)
    assert box == Box((0.0, 10.0, 128.0, 96.0), 1, 0.7)


def test_stages_are_the_encoder_and_each_layer() -> None:
    trace = made_trace()
    assert list(stages(trace)) == ['encoder', 'layer 1', 'result']
    assert list(stages(replace(trace, encoder=None))) == ['layer 1', 'result']
    assert stages(trace)['encoder'] is trace.encoder and tuple(stages(trace).values())[1:] == trace.layers


@pytest.mark.parametrize('stage', ['encoder', 'layer 1', 'result'])
def test_a_stages_boxes_are_drawn_where_its_numbers_are(stage: str) -> None:
    trace = made_trace()
    boxes = stages(trace)[stage]
    drawing = draw_overlay(GREY, detections(boxes, trace.size_px, 0.5), NAMES)
    assert drawing.size == (view().width, view().height) == (512, 384)
    x1, y1, x2, y2 = view().to_canvas(boxes.boxes_px[0])
    assert extent(drawing, colour_of(1), below=y1) == (x1, y1, x2, y2)
    assert (np.asarray(drawing)[y1:, :] == colour_of(0)).all(-1).sum() == 0  # the other query scores 0.4
    both = draw_overlay(GREY, detections(boxes, trace.size_px, 0.4), NAMES)
    x1, y1, x2, y2 = view().to_canvas((60.0, 50.0, 128.0, 90.0))
    assert extent(both, colour_of(0), below=y1) == (x1, y1, x2, y2)


def test_large_images_are_reduced_and_their_boxes_with_them() -> None:
    large = Image.new('RGB', (2560, 1280), (128, 128, 128))
    drawing = draw_overlay(large, [Box((400.0, 600.0, 1000.0, 1200.0), 1, 0.9)], NAMES)
    assert drawing.size == (1280, 640)
    assert extent(drawing, colour_of(1), below=300) == (200, 300, 499, 599)


def test_tokens_are_dots_at_their_place_by_level_and_score() -> None:
    trace = made_trace()
    drawing = draw_overlay(GREY, [], NAMES, trace)
    widths = []
    for centre, share in zip(trace.tokens.centres_px, (1.0, 0.4 / 0.9)):
        x1, y1, x2, y2 = extent(drawing, token_colour(share))
        assert np.allclose((0.5 * (x1 + x2), 0.5 * (y1 + y2)), centre * 4, atol=1)  # whole px
        widths.append(x2 - x1)
    assert widths[1] == widths[0] + 4
    changed = (np.asarray(drawing) != 128).any(-1)
    ys, xs = np.nonzero(changed)
    near = np.abs(np.stack([xs, ys], 1)[:, None] - trace.tokens.centres_px * 4).max(2).min(1)
    assert near.max() <= 6
    assert (np.asarray(draw_overlay(GREY, [], NAMES, replace(trace, tokens=None))) == 128).all()
    boxes = [Box((10.0, 18.0, 30.0, 38.0), 0, 0.9)]
    over = np.asarray(draw_overlay(GREY, boxes, NAMES, trace)) != np.asarray(draw_overlay(GREY, boxes, NAMES))
    assert over.any()  # a box doesn't hide the dots in it


def test_colours_get_lighter_with_the_score() -> None:
    luma = [np.dot(token_colour(share), (0.299, 0.587, 0.114)) for share in np.linspace(0, 1, 21)]
    assert (np.diff(luma) > 0).all()


def test_every_label_has_a_name() -> None:
    two_classes, one_class = scored(((0, 0, 1, 1), 0.2, 0.1)), ScoredBoxes(np.zeros((1, 4)), np.zeros((1, 1)))
    assert names_of(two_classes, NAMES) == NAMES
    assert names_of(two_classes, ()) == names_of(two_classes, ('a', 'b', 'c')) == ('class 0', 'class 1')
    assert names_of(one_class, NAMES) == ('object',) and names_of(one_class, ('cat',)) == ('cat',)

"""What the page says, draws and gives as JSON of an image agrees with itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from demo_cases import GREY, NAMES, made_trace
from PIL import Image

from mmdet_iouquery.apps.analyze.draw import Box
from mmdet_iouquery.apps.demo.examples import Example
from mmdet_iouquery.apps.demo.image_results import NO_LAYERS, NO_TOKENS, TOKENS, as_json, draw_truth, show, side_by_side
from mmdet_iouquery.apps.demo.model import Look
from mmdet_iouquery.apps.demo.overlay import RESULT, draw_overlay, stages
from mmdet_iouquery.evaluation.selection_quality import Objects


class StubModel:
    """Finds what a made trace says; of ``told`` False as an exported file does, the result alone."""

    def __init__(self, with_trace: bool = True) -> None:
        self.classes, trace = NAMES, made_trace()
        self.seen: list[object] = []
        of_stages = stages(trace) if with_trace else {RESULT: trace.layers[-1]}
        self._look = Look(GREY, of_stages, trace if with_trace else None, NAMES)

    def look(self, source: object, size: object = None) -> Look:
        self.seen.append((source, size))
        return self._look


EXAMPLE = Example(
    Path('set/a.jpg'), (128, 96), Objects(np.array([[1.0, 2.0, 50.0, 60.0]]), np.array([1])), ('cat', 'dog')
)


def test_a_stage_is_shown_and_the_result_where_there_is_none_of_its_name() -> None:
    model = StubModel()
    for stage, x1 in (('encoder', 10.0), ('layer 1', 20.0), (RESULT, 30.0), ('layer 9', 30.0)):
        shown = show('m', model, EXAMPLE, 0.5, stage)  # type: ignore[arg-type]
        assert shown.stage == (RESULT if stage == 'layer 9' else stage)
        assert shown.boxes == [Box((x1, 40.0, x1 + 20, 80.0), 1, 0.9)]
    assert set(model.seen) == {(EXAMPLE.path, EXAMPLE.size)}


def test_the_sentence_counts_and_the_remark_explains() -> None:
    traced, untraced = StubModel(), StubModel(with_trace=False)
    assert show('m', traced, GREY, 0.4).sentence(0.4) == '**2 of 2 queries** score at least 0.40.'  # type: ignore[arg-type]
    none = show('m', untraced, GREY, 0.95)  # type: ignore[arg-type]
    assert none.sentence(0.95) == '**0 of 2 detections** score at least 0.95. The best has 0.90.'
    assert none.remark(with_tokens=True) == none.remark(with_tokens=False) == NO_LAYERS
    shown = show('m', traced, GREY, 0.4)  # type: ignore[arg-type]
    assert shown.remark(with_tokens=True) == TOKENS and shown.remark(with_tokens=False) == ''
    without = shown._replace(
        look=shown.look._replace(trace=made_trace().__class__(**{**vars(made_trace()), 'tokens': None}))
    )
    assert without.remark(with_tokens=True) == NO_TOKENS


def test_the_table_has_a_row_for_each_box_and_names_cannot_break_out() -> None:
    shown = show('m', StubModel(), GREY, 0.4)._replace(names=('<ant>', 'bee'))  # type: ignore[arg-type]
    table = shown.table()
    assert table.count('<tr>') == 3 and '&lt;ant&gt;' in table and '<ant>' not in table
    assert '<td>bee</td><td>0.90</td><td>30</td><td>40</td><td>50</td><td>80</td>' in table
    assert show('m', StubModel(), GREY, 0.95).table() == ''  # type: ignore[arg-type]


def test_json_tells_of_each_model_and_of_the_ground_truth() -> None:
    shown = [show(name, StubModel(), EXAMPLE, 0.5, 'encoder') for name in 'ab']  # type: ignore[arg-type]
    data = json.loads(json.dumps(as_json(shown, 0.5, EXAMPLE)))
    assert (data['image'], data['width'], data['height'], data['score_threshold']) == ('a.jpg', 128, 96, 0.5)
    detections = [dict(box=[10.0, 40.0, 30.0, 80.0], label=1, name='bee', score=0.9)]
    assert data['models'] == [dict(model=name, boxes_of='encoder', detections=detections) for name in 'ab']
    assert data['ground_truth'] == [dict(box=[1.0, 2.0, 50.0, 60.0], label=1, name='dog')]
    assert 'ground_truth' not in as_json(shown, 0.5, Example(Path('a.jpg')))


def test_ground_truth_is_drawn_with_the_names_of_its_set() -> None:
    expected = draw_overlay(GREY, [Box((1.0, 2.0, 50.0, 60.0), 1)], ('cat', 'dog'))
    assert np.array_equal(draw_truth(EXAMPLE, GREY), expected)


@pytest.mark.parametrize('count', [1, 3])
def test_drawings_lie_side_by_side_in_one_file(count: int) -> None:
    drawings = [Image.new('RGB', (40, 30), (0, 0, 90 * number)) for number in range(count)]
    sheet = side_by_side(drawings)
    assert sheet.height >= 30 and sheet.width >= 40 * count
    seen = [colour for _, colour in sheet.getcolors() or [] if colour != (255, 255, 255)]
    assert sorted(seen) == [(0, 0, 90 * number) for number in range(count)]

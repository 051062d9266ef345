"""The forms that detections are handed on in."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from image_files import RGB, random_image, turned
from PIL import Image, ImageFont
from pycocotools.coco import COCO

from iouquery_runtime import InputError, Result, results
from iouquery_runtime.postprocess import Detections
from iouquery_runtime.results import was_drawn

CLASSES = ('person', 'dog', 'Fahrrad ü')
BOXES = [[2.0, 3.0, 12.0, 28.0], [20.5, 0.0, 48.0, 10.25]]


def result(**image: Any) -> Result:
    """Of the image of 48 x 32 px."""
    detections = Detections(np.float32(BOXES), np.float32([0.75, 0.5]), np.int64([2, 0]))
    return Result.of(detections, CLASSES, (48, 32), **{'source': RGB, 'path': 'a.png', **image})


def test_names_go_with_labels() -> None:
    assert result().names == ('Fahrrad ü', 'person') and len(result()) == 2


def test_a_dict_is_plain_json() -> None:
    assert json.loads(json.dumps(result().to_dict())) == {
        'path': 'a.png',
        'width': 48,
        'height': 32,
        'detections': [
            {'box': BOXES[0], 'score': 0.75, 'label': 2, 'name': 'Fahrrad ü'},
            {'box': BOXES[1], 'score': 0.5, 'label': 0, 'name': 'person'},
        ],
    }
    failed = {'path': 'b.png', 'width': 0, 'height': 0, 'detections': [], 'error': 'b.png: the file is empty'}
    assert Result.failed('b.png: the file is empty', path='b.png').to_dict() == failed


def test_coco_s_own_reader_takes_the_entries() -> None:
    """Corners become a corner and a size; labels become ids where these are given."""
    entries = json.loads(json.dumps(result().to_coco(7, category_ids=[1, 18, 2])))
    assert entries[0] == {'image_id': 7, 'category_id': 2, 'bbox': [2, 3, 10, 25], 'score': 0.75}
    assert entries[1]['bbox'] == [20.5, 0, 27.5, 10.25] and entries[1]['category_id'] == 1
    assert [entry['category_id'] for entry in result().to_coco(7)] == [3, 1]
    with pytest.raises(InputError, match='category_ids has 2 ids, and label 2 was found; give one for each of the det'):
        result().to_coco(7, category_ids=[1, 18])
    assert Result.failed('empty').to_coco(7, category_ids=[]) == []
    truth = COCO()
    truth.dataset = {'info': {}, 'images': [{'id': 7}], 'annotations': [], 'categories': [{'id': 1}, {'id': 2}]}
    truth.createIndex()
    assert truth.loadRes(entries).anns[1]['area'] == 250


def test_supervision_gets_its_own_class(monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = {}
    stand_in = ModuleType('supervision')
    stand_in.Detections = lambda **values: fields.update(values) or fields  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'supervision', stand_in)
    assert result().to_supervision() is fields and set(fields) == {'xyxy', 'confidence', 'class_id', 'data'}
    np.testing.assert_array_equal(fields['xyxy'], BOXES)
    assert fields['confidence'].tolist() == [0.75, 0.5] and fields['class_id'].tolist() == [2, 0]
    assert fields['data']['class_name'].tolist() == ['Fahrrad ü', 'person']
    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(InputError, match=r'to_supervision\(\) needs supervision, which .*: pip install supervision'):
        result().to_supervision()


def test_supervision_itself_takes_them() -> None:
    supervision = pytest.importorskip('supervision')
    detections = result().to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == 2
    assert detections[detections.class_id == 0].data['class_name'].tolist() == ['person']
    assert len(Result.failed('empty').to_supervision()) == 0


def test_a_figure_has_boxes_where_they_are(tmp_path: Path) -> None:
    """In the colour of the class; the rest is the image's. As .jpg and .webp, about the same."""
    image = random_image(480, 320)
    large = replace(result(), boxes=10 * np.float32(BOXES), source=image)
    large.draw(tmp_path / 'a.png')
    pixels, expected = np.asarray(Image.open(tmp_path / 'a.png')), np.asarray(image)
    colours = [results._colour(label) for label in (2, 0)]
    assert np.abs(np.int64(colours[0]) - colours[1]).max() > 100
    for (x1, _, x2, y2), colour in zip(large.boxes.astype(int) - 1, colours):
        assert (pixels[y2, x1 + 1 : x2] == colour).all() and (pixels[y2 - 40 : y2, x2] == colour).all()
    inside, between = (slice(80, 270), slice(30, 110)), (slice(140, 320), slice(130, 480))
    for area in (inside, between):
        np.testing.assert_array_equal(pixels[area], expected[area])
    for name in ('a.jpg', 'a.WEBP', 'deeper/still/a.jpeg'):
        large.draw(tmp_path / name)
        assert was_drawn(tmp_path / name)
        lossy = np.asarray(Image.open(tmp_path / name)).astype(int)
        assert 0 < np.abs(lossy - pixels).mean() < 3
    assert sorted(os.listdir(tmp_path)) == ['a.WEBP', 'a.jpg', 'a.png', 'deeper']


@pytest.mark.parametrize('side', [200, 640, 1920])
def test_name_and_score_stand_apart_and_off_the_edges(side: int, tmp_path: Path) -> None:
    """Half an em between them, about a quarter around; at the image's right edge too."""
    size = max(11, side // 50)
    boxes = np.float32([[side // 8, 40, side // 2, 140], [side - 12, 40, side, 140]])
    detections = Detections(boxes, np.float32([0.75, 0.5]), np.int64([1, 1]))
    Result.of(detections, CLASSES, (side, 150), source=Image.new('RGB', (side, 150), 'white')).draw(
        tmp_path / 'figure.png'
    )
    pixels = np.asarray(Image.open(tmp_path / 'figure.png')).astype(int)[40 + max(2, round(side / 400)) :]
    first = pixels[: size + size // 2]
    inked = (first.max(-1) < 170).any(0)
    label = inked | (first == results._colour(1)).all(-1).any(0)
    starts, ends = (np.flatnonzero(np.diff(label.astype(int), prepend=0, append=0) == step) for step in (1, -1))
    assert ends[-1] == side
    for start, end in ((starts[0], ends[0]), (starts[-1], ends[-1])):
        columns = np.flatnonzero(inked[start:end])
        gaps = np.diff(columns) - 1
        assert 0.4 * size <= gaps.max() <= 0.7 * size and (gaps > 0.3 * size).sum() == 1
        margins = columns[0], end - start - 1 - columns[-1]
        assert min(margins) >= 2 and max(margins) - min(margins) <= 2 and max(margins) <= 0.5 * size


def test_a_figure_is_drawn_on_what_was_given(tmp_path: Path) -> None:
    array = np.asarray(RGB)
    (tmp_path / 'turned.png').write_bytes(turned(RGB.transpose(Image.Transpose.ROTATE_90), 6, 'PNG'))
    for source, bgr in ((array, False), (array[..., ::-1], True), (RGB, False), (tmp_path / 'turned.png', False)):
        result(source=source, bgr=bgr).draw(tmp_path / 'figure.png')
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'figure.png'))[29:], array[29:])
    np.testing.assert_array_equal(np.asarray(RGB), array)


def test_names_are_drawn_by_old_and_new_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 10.1 it had one font of Latin letters."""
    old = (
        ImageFont.load_default_imagefont() if hasattr(ImageFont, 'load_default_imagefont') else ImageFont.load_default()
    )

    def load_default() -> Any:
        return old

    monkeypatch.setattr(ImageFont, 'load_default', load_default)
    drawn = replace(result(), names=('自転車', 'person'))
    drawn.draw(tmp_path / 'figure.png')
    assert was_drawn(tmp_path / 'figure.png')


def test_a_figure_that_cannot_be_drawn_is_told_and_not_begun(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'a.gif: a figure is written as .jpg, .jpeg, .png, .webp'):
        result().draw(tmp_path / 'a.gif')
    with pytest.raises(InputError, match=r'b.png: the file is empty'):
        Result.failed('b.png: the file is empty', source='b.png').draw(tmp_path / 'a.png')
    with pytest.raises(InputError, match=r'gone.png cannot be read: No such file'):
        result(source=tmp_path / 'gone.png').draw(tmp_path / 'a.png')
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match=r'a.png cannot be written: (Not a directory|File exists)'):
        result().draw(tmp_path / 'file' / 'a.png')
    assert os.listdir(tmp_path) == ['file']


def test_an_older_figure_stays_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'a.png'
    result().draw(path)
    before = path.read_bytes()

    def full(self: Image.Image, target: Path, *args: object, **options: object) -> None:
        target.write_bytes(before[:100])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Image.Image, 'save', full)
    with pytest.raises(InputError, match=r'a.png cannot be written: No space left on device'):
        result().draw(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ['a.png']


def test_only_figures_count_as_drawn(tmp_path: Path) -> None:
    RGB.save(tmp_path / 'image.png')
    (tmp_path / 'text.png').write_text('no image')
    exif = Image.Exif()
    exif[0x0131] = 'another program'
    RGB.save(tmp_path / 'other.jpg', exif=exif)
    assert not any(was_drawn(tmp_path / name) for name in ('image.png', 'text.png', 'other.jpg', 'none.png'))

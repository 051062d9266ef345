"""What is drawn stands where the numbers say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmdet_iouquery.apps.analyze.draw import (
    PALETTE,
    Box,
    View,
    boxes_of,
    colour_of,
    contact_sheet,
    draw_side_by_side,
    side_by_side_views,
)
from mmdet_iouquery.apps.analyze.draw_run import draw_run
from mmdet_iouquery.errors import InputError

CLASSES = ('cat', 'dog', 'ox')


def _grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last column and row, x1, y1, x2, y2, where a mask is set."""
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


def test_view_maps_edges_to_the_first_and_last_pixel() -> None:
    view = View(left=100, top=50, scale=2.0, width=128, height=96)
    assert view.to_canvas((10, 5, 20, 8)) == (120, 60, 139, 65)
    assert view.to_canvas((0, 0, 64, 48)) == (100, 50, 227, 145)
    assert view.to_canvas((-9, -9, 900, 900)) == (100, 50, 227, 145)
    assert view.to_canvas((7.3, 7.3, 7.3, 7.3)) == (115, 65, 115, 65)


@pytest.mark.parametrize(
    ('size', 'scale'),
    [((256, 256), 2), ((128, 96), 4), ((200, 300), 2), ((640, 480), 1), ((2560, 1920), 0.5), ((8, 8), 8)],
)
def test_small_images_are_enlarged_and_large_ones_reduced(size: tuple[int, int], scale: float) -> None:
    left, right = side_by_side_views(*size)
    assert left.scale == right.scale == scale
    assert (left.width, left.height) == (right.width, right.height) == (size[0] * scale, size[1] * scale)
    assert right.left > left.left + left.width and left.top == right.top


def test_drawn_outlines_stand_at_the_mapped_coordinates() -> None:
    """Several boxes of one class each: the colour's extent below its label is the box, on the right side only."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        x1, y1 = rng.uniform(5, 100, 2)
        x2, y2 = x1 + rng.uniform(60, 90), y1 + rng.uniform(40, 90)
        for height, width in ((256, 256), (200, 640)):
            drawing = np.asarray(draw_side_by_side(_grey(height, width), [], [Box((x1, y1, x2, y2), 1, 0.5)], CLASSES))
            _, view = side_by_side_views(width, height)
            left, top, right, bottom = view.to_canvas((x1, y1, x2, y2))
            colour = (drawing == colour_of(1)).all(axis=2)
            assert not colour[:, : view.left].any()
            for row in (top, bottom):
                assert colour[row, left : right + 1].mean() > 0.5
            for column in (left, right):
                assert colour[top : bottom + 1, column].mean() > 0.5
            inner = colour[(top + bottom) // 2 : bottom + 1]
            assert (_extent(inner)[0], _extent(inner)[2]) == (left, right)
            assert _extent(inner)[3] + (top + bottom) // 2 == bottom
            scale = view.scale
            for drawn, exact in ((left - view.left, x1), (right + 1 - view.left, x2), (top - view.top, y1)):
                assert abs(drawn - exact * scale) <= 0.5


def test_ground_truth_is_left_and_detections_are_right() -> None:
    truth, detections = [Box((10, 60, 60, 90), 0)], [Box((120, 120, 200, 220), 2, 0.9)]
    drawing = np.asarray(draw_side_by_side(_grey(256, 256), truth, detections, CLASSES))
    left, right = side_by_side_views(256, 256)
    truth_colour, found_colour = ((drawing == colour_of(label)).all(axis=2) for label in (0, 2))
    assert truth_colour[:, : right.left].any() and not truth_colour[:, right.left :].any()
    assert found_colour[:, right.left :].any() and not found_colour[:, : right.left].any()
    assert (drawing[left.top + 300, left.left + 400] == 128).all()


@pytest.mark.parametrize('position', ['top left', 'top right', 'bottom left', 'bottom right', 'all of it'])
def test_labels_are_never_cut_at_the_edge(position: str) -> None:
    """A label has the same number of coloured pixels at every edge as in the middle, so none of it is lost."""
    boxes = {
        'top left': (0, 0, 20, 20),
        'top right': (236, 0, 256, 20),
        'bottom left': (0, 236, 20, 256),
        'bottom right': (236, 236, 256, 256),
        'all of it': (0, 0, 256, 256),
    }
    name = 'a rather long name'
    drawing = np.asarray(draw_side_by_side(_grey(256, 256), [], [Box(boxes[position], 0, 0.25)], (name,)))
    _, view = side_by_side_views(256, 256)
    inside = np.zeros(drawing.shape[:2], bool)
    inside[view.top : view.top + view.height, view.left : view.left + view.width] = True
    colour = (drawing == colour_of(0)).all(axis=2)
    assert not (colour & ~inside).any()
    middle = np.asarray(draw_side_by_side(_grey(256, 256), [], [Box((100, 100, 120, 120), 0, 0.25)], (name,)))
    filled = (middle == colour_of(0)).all(axis=2).sum(axis=1).max()
    assert colour[:, :].sum(axis=1).max() >= filled


def test_a_name_wider_than_the_image_is_shortened() -> None:
    drawing = draw_side_by_side(_grey(64, 64), [Box((0, 0, 10, 10), 0)], [], ('x' * 500,), title='t' * 500)
    left, _ = side_by_side_views(64, 64)
    colour = (np.asarray(drawing) == colour_of(0)).all(axis=2)
    assert _extent(colour)[2] < left.left + left.width
    header = np.asarray(drawing)[: left.top]
    assert _extent((header != 255).any(axis=2))[2] < drawing.width


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    """Two boxes at one place: off the boxes' outlines, each label shows as many pixels as where it is alone."""
    boxes = [Box((60, 60, 100, 100), 0), Box((60, 60, 100, 100), 1)]
    left, _ = side_by_side_views(128, 128)
    x1, y1, x2, y2 = left.to_canvas(boxes[0].xyxy_px)

    def label_pixels(drawn: list[Box], label: int) -> int:
        image = np.asarray(draw_side_by_side(_grey(128, 128), drawn, [], CLASSES))
        colour = (image == colour_of(label)).all(axis=2)
        colour[y1 : y2 + 1, x1 : x2 + 1] = False
        return int(colour.sum())

    for label in (0, 1):
        assert label_pixels(boxes, label) == label_pixels(boxes[label : label + 1], label) > 200


def test_empty_sides_and_all_kinds_of_images(tmp_path: Path) -> None:
    Image.fromarray(_grey(20, 30)).save(tmp_path / 'in.png')
    for image in (
        _grey(20, 30),
        Image.fromarray(_grey(20, 30)).convert('L'),
        tmp_path / 'in.png',
        str(tmp_path / 'in.png'),
    ):
        drawing = draw_side_by_side(image, [], [], CLASSES, tmp_path / 'deep' / 'out.png')
        left, right = side_by_side_views(30, 20)
        assert drawing.size == (right.left + right.width + 8, left.top + left.height + 8)
        with Image.open(tmp_path / 'deep' / 'out.png') as written:
            assert written.size == drawing.size


def test_what_can_not_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='label 3, but there are 3 class names'):
        draw_side_by_side(_grey(20, 30), [Box((0, 0, 5, 5), 3)], [], CLASSES)
    with pytest.raises(InputError, match=r'absent\.jpg cannot be read'):
        draw_side_by_side(tmp_path / 'absent.jpg', [], [], CLASSES)
    with pytest.raises(InputError, match=r'\(H, W, 3\) uint8 RGB, got \(20, 30\) float64'):
        draw_side_by_side(np.zeros((20, 30)), [], [], CLASSES)
    with pytest.raises(InputError, match='0 images in 2 columns'):
        contact_sheet([], 2)


def test_palette_repeats_and_has_no_two_equal_colours() -> None:
    assert len(set(PALETTE)) == 7 and colour_of(7) == colour_of(0) != colour_of(1)


def test_boxes_of_instances() -> None:
    import torch

    class Instances(SimpleNamespace):
        def __contains__(self, name: str) -> bool:
            return hasattr(self, name)

    boxes, labels = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]), torch.tensor([2, 0])
    assert boxes_of(Instances(bboxes=boxes, labels=labels)) == [Box((1, 2, 3, 4), 2), Box((5, 6, 7, 8), 0)]
    instances = Instances(bboxes=boxes, labels=labels, scores=torch.tensor([0.25, 0.75]))
    assert boxes_of(instances, score_thr=0.5) == [Box((5, 6, 7, 8), 0, 0.75)]


def test_contact_sheet_lays_images_row_by_row(tmp_path: Path) -> None:
    images = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30, 40, 50)]
    sheet = np.asarray(contact_sheet(images, 2, tmp_path / 'sheet.png', gap=4))
    assert sheet.shape == (4 + 3 * 14, 4 + 2 * 24, 3)
    for index, value in enumerate((10, 20, 30, 40, 50)):
        x, y = 4 + index % 2 * 24, 4 + index // 2 * 14
        assert (sheet[y : y + 10, x : x + 20] == value).all()
    assert (sheet[:4] == 255).all() and (sheet[-14:-4, 28:] == 255).all()
    assert (tmp_path / 'sheet.png').is_file()


# A run's files


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """Three images, a truth and a detection for each; category ids with gaps and out of order."""
    names = ['a.png', 'sub/b.png', 'c.png']
    for name in names:
        (tmp_path / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_grey(256, 256)).save(tmp_path / 'images' / name)
    truth = dict(
        images=[dict(id=10 + i, file_name=name, width=256, height=256) for i, name in enumerate(names)],
        annotations=[
            dict(id=i, image_id=10 + i, category_id=900, bbox=[40, 50, 100, 80], area=8000, iscrowd=0) for i in range(3)
        ],
        categories=[dict(id=900, name='ox'), dict(id=3, name='cat')],
    )
    truth['annotations'].append(
        dict(id=9, image_id=10, category_id=3, bbox=[float('nan'), 1, 5, 5], area=25, iscrowd=0)
    )
    results = [
        dict(image_id=11, category_id=3, bbox=[60.0, 70.0, 90.0, 50.0], score=0.8),
        dict(image_id=11, category_id=900, bbox=[10.0, 150.0, 90.0, 50.0], score=0.2),
    ]
    (tmp_path / 'ann.json').write_text(json.dumps(truth))
    (tmp_path / 'val.bbox.json').write_text(json.dumps(results))
    return dict(
        ann_file=tmp_path / 'ann.json',
        image_dir=tmp_path / 'images',
        results=tmp_path / 'val.bbox.json',
        out_dir=tmp_path / 'out',
    )


def test_draw_run_writes_the_first_images(run: dict[str, Any]) -> None:
    paths = draw_run(**run, num_images=2)
    assert [path.name for path in paths] == ['000_a.png', '001_b.png'] and all(path.is_file() for path in paths)
    assert len(draw_run(**run)) == 3
    drawing = np.asarray(Image.open(paths[1]))
    left, right = side_by_side_views(256, 256)
    ox, cat = ((drawing == colour_of(label)).all(axis=2) for label in (0, 1))
    x1, y1, x2, y2 = left.to_canvas((40, 50, 140, 130))
    assert _extent(ox[y1:])[::2] == (x1, x2) and _extent(ox)[3] == y2
    x1, y1, x2, y2 = right.to_canvas((60, 70, 150, 120))
    assert _extent(cat[y1:])[::2] == (x1, x2) and _extent(cat)[3] == y2
    assert not ox[:, right.left :].any(), 'its score of 0.2 is under the threshold'


def test_draw_run_score_threshold(run: dict[str, Any]) -> None:
    _, right = side_by_side_views(256, 256)
    drawing = np.asarray(Image.open(draw_run(**run, score_thr=0.1)[1]))
    assert (drawing == colour_of(0)).all(axis=2)[:, right.left :].any()


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (dict(image_id=99), r'detection 1 has image_id 99, which .*ann\.json does not have'),
        (dict(category_id=1), 'detection 1 has category_id 1'),
        (dict(bbox=[1, 2, 3]), r'detection 1 has bbox \[1, 2, 3\]'),
        (dict(score=...), "detection 1 has no 'score'"),
    ],
)
def test_draw_run_faults(run: dict[str, Any], entry: dict[str, Any], message: str) -> None:
    results = json.loads(run['results'].read_text())
    results[1] = {key: value for key, value in {**results[1], **entry}.items() if value is not ...}
    run['results'].write_text(json.dumps(results))
    with pytest.raises(InputError, match=message) as error:
        draw_run(**run)
    assert str(run['results']) in str(error.value)


def test_draw_run_wants_a_result_file_and_an_image(run: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r'ann\.json is not a COCO result file'):
        draw_run(**{**run, 'results': run['ann_file']})
    with pytest.raises(InputError, match='num_images=0'):
        draw_run(**run, num_images=0)

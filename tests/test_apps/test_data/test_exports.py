"""Exports of CVAT and Label Studio, and COCO with masks alone: shapes by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from form_sets import boxes_of, changed, left_out, write_image, write_text
from pycocotools import mask as coco_mask

from mmdet_iouquery.apps.data.coco_masks import lacks_boxes, read_coco_masks
from mmdet_iouquery.apps.data.cvat import read_cvat
from mmdet_iouquery.apps.data.folder import Folder
from mmdet_iouquery.apps.data.label_studio import begins_as_list, brush_box, read_label_studio
from mmdet_iouquery.apps.data.reading import Reading, turned_box
from mmdet_iouquery.errors import InputError


def test_a_turned_box_lies_in_the_upright_one_around_it() -> None:
    assert turned_box((10, 20, 40, 20), 0, (0, 0)) == (10, 20, 40, 20)
    assert turned_box((10, 20, 40, 20), 90, (30, 30)) == pytest.approx((20, 10, 20, 40))
    assert turned_box((10, 20, 40, 20), 90, (10, 20)) == pytest.approx((-10, 20, 20, 40)), 'clockwise about its corner'
    side = 2**0.5
    assert turned_box((0, 0, 1, 1), 45, (0.5, 0.5)) == pytest.approx(((1 - side) / 2, (1 - side) / 2, side, side))


def cvat(
    root: Path, images: str, labels: str = '<label><name>dog</name></label><label><name>cat</name></label>'
) -> Reading:
    meta = f'<meta><task><labels>{labels}</labels></task></meta>'
    path = write_text(root / 'annotations.xml', f'<annotations><version>1.1</version>{meta}{images}</annotations>')
    return read_cvat(Folder(root), [path])


def test_cvat_shapes(tmp_path: Path) -> None:
    write_image(tmp_path / 'images' / 'default' / 'a.jpg')
    write_image(tmp_path / 'images' / 'b.jpg')
    shapes = [
        '<box label="cat" occluded="1" xtl="10.5" ytl="20" xbr="50" ybr="40"><attribute name="x">1</attribute></box>',
        '<box label="cat" rotation="90.0" xtl="10" ytl="20" xbr="50" ybr="40"/>',
        '<polygon label="dog" points="10.0,5.0;30.0,5.0;20.0,25.0"/>',
        '<mask label="dog" rle="1, 2" left="3" top="4" width="7" height="6"/>',
        '<ellipse label="dog" cx="50" cy="25" rx="20" ry="10"/>',
        '<polyline label="dog" points="1,2;3,4"/>',
        '<box label="cat" xtl="a" ytl="20" xbr="50" ybr="40"/>',
        '<tag label="rain"/>',
    ]
    images = f'<image id="0" name="default/a.jpg" width="100" height="50">{"".join(shapes)}</image>'
    images += '<image id="1" name="b.jpg" width="100" height="50" subset="Validation"/>'
    reading = cvat(tmp_path, images + '<image id="2" name="gone.jpg" width="100" height="50"/>')
    assert boxes_of(reading) == {
        'a.jpg': [
            ('cat', (10.5, 20, 39.5, 20)),
            ('cat', (20, 10, 20, 40)),
            ('dog', (10, 5, 20, 20)),
            ('dog', (3, 4, 7, 6)),
            ('dog', (30, 15, 40, 20)),
        ],
        'b.jpg': [],
    }
    assert [image.split for image in reading.images] == ['', 'val'] and reading.classes == ('dog', 'cat')
    assert changed(reading) == {
        'rotated shapes converted to the upright boxes around them': 1,
        'polygons converted to boxes': 1,
        'masks converted to boxes': 1,
        'ellipses converted to boxes': 1,
    }
    assert left_out(reading) == {
        ('boxes', 'a polyline, which is no box, polygon, mask or ellipse'): 1,
        ('boxes', 'a box whose place is not made of numbers'): 1,
        ('images', 'no image of that name'): 1,
    }


def test_cvat_for_video_and_other_xml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'export as "CVAT for video".*export it as "CVAT for images"'):
        cvat(tmp_path, '<track id="0" label="cat"/>')
    with pytest.raises(InputError, match='it has no images'):
        cvat(tmp_path, '')
    write_text(tmp_path / 'annotations.xml', '<annotations>')
    with pytest.raises(InputError, match='is a broken XML file; export it again'):
        read_cvat(Folder(tmp_path), [tmp_path / 'annotations.xml'])


def shape(kind: str, label: str, **value: Any) -> dict[str, Any]:
    return {'type': kind, 'original_width': 100, 'original_height': 50, 'value': {**value, kind: [label]}}


def task(image: str, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {'data': {'image': image}, 'annotations': [{'result': list(results)}], **more}


BOX = shape('rectanglelabels', 'cat', x=10, y=40, width=40, height=40, rotation=0)
IN_PX = ('cat', (10, 20, 40, 20))


def label_studio(root: Path, tasks: object) -> Reading:
    path = write_text(root / 'export.json', '\ufeff' + json.dumps(tasks))
    assert begins_as_list(path) == isinstance(tasks, list)
    return read_label_studio(Folder(root), [path])


def test_label_studio_shapes_are_in_percent(tmp_path: Path) -> None:
    write_image(tmp_path / 'a.jpg')
    shapes = [
        BOX,
        shape('rectanglelabels', 'cat', x=50, y=20, width=20, height=80, rotation=90),  # about its corner (50, 10)
        shape('polygonlabels', 'dog', points=[[10, 10], [30, 10], [20, 50]]),
        shape('ellipselabels', 'dog', x=50, y=50, radiusX=20, radiusY=20),
        shape('keypointlabels', 'dog', x=1, y=1),
        shape('rectanglelabels', 'cat', x='a', y=40, width=40, height=40),
        {'type': 'choices', 'value': {'choices': ['rain']}},
        {'type': 'rectangle', 'value': {'x': 1, 'y': 1, 'width': 2, 'height': 2}},
    ]
    reading = label_studio(tmp_path, [task('a.jpg', *shapes)])
    expected = [IN_PX, ('cat', (10, 10, 40, 20)), ('dog', (10, 5, 20, 20)), ('dog', (30, 15, 40, 20))]
    assert boxes_of(reading) == {'a.jpg': expected}
    assert left_out(reading) == {
        ('boxes', 'keypointlabels, which is no labelled rectangle, polygon, ellipse or mask'): 1,
        ('boxes', 'shape without a label, which is no labelled rectangle, polygon, ellipse or mask'): 1,
        ('boxes', 'a shape whose place is not made of numbers'): 1,
    }


@pytest.mark.parametrize(
    'image',
    [
        '/data/upload/3/0a1b2c3d-my%20photo.jpg',
        'https://example.org/x/my%20photo.jpg?token=1',
        '/data/local-files/?d=set/images/my photo.jpg',
        's3://bucket/images/my photo.jpg',
    ],
)
def test_label_studio_names_images_by_urls(tmp_path: Path, image: str) -> None:
    write_image(tmp_path / 'images' / 'my photo.jpg')
    assert boxes_of(label_studio(tmp_path, [task(image, BOX)])) == {'my photo.jpg': [IN_PX]}


def test_label_studio_tasks_done_several_times_or_not_at_all(tmp_path: Path) -> None:
    for name in 'abcde':
        write_image(tmp_path / f'{name}.jpg')
    old, new = ({'result': [{**BOX, 'value': {**BOX['value'], 'x': x}}], 'updated_at': f'2026-0{x}'} for x in (1, 2))
    tasks = [
        {
            'data': {'image': 'a.jpg'},
            'annotations': [new, old, {'result': [], 'was_cancelled': True, 'updated_at': '2027'}],
        },
        {'data': {'image': 'b.jpg'}, 'annotations': [{**old, 'ground_truth': True}, new]},
        {'data': {'image': 'c.jpg'}, 'annotations': [], 'predictions': [new]},
        task('d.jpg'),
    ]
    reading = label_studio(tmp_path, tasks)
    assert boxes_of(reading) == {'a.jpg': [('cat', (2, 20, 40, 20))], 'b.jpg': [('cat', (1, 20, 40, 20))], 'd.jpg': []}
    assert changed(reading) == {'tasks annotated several times: the ground truth, else the newest one, is used': 2}
    assert left_out(reading) == {
        ('images', 'tasks that are not annotated'): 1,
        ('images', 'not in the export'): 1,
    }


def test_label_studio_json_min(tmp_path: Path) -> None:
    write_image(tmp_path / 'a.jpg')
    value = {**BOX['value'], 'original_width': 100, 'original_height': 50}
    assert boxes_of(label_studio(tmp_path, [{'image': 'a.jpg', 'label': [value], 'id': 1}])) == {'a.jpg': [IN_PX]}


@pytest.mark.parametrize(('tasks', 'message'), [([], 'not a list of tasks'), ([1], 'not a list of tasks')])
def test_other_lists_are_no_export(tmp_path: Path, tasks: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_studio(tmp_path, tasks)


# what label-studio-sdk 2.1.2's mask2rle makes of 10 x 6 px, of which 5 x 2 from (3, 2) on are painted
BRUSH = [0, 0, 0, 240, 57, 27, 254, 91, 0, 194, 127, 248, 76, 3, 9, 255, 229, 112, 0]


def test_label_studio_brush_masks(tmp_path: Path) -> None:
    assert brush_box(BRUSH, (10, 6)) == (3, 2, 5, 2)
    for alpha in (255, 0):  # a pixel of four bytes that are not repeated, by hand
        header = f'{4:032b}' + f'{7:05b}' + f'{1:04b}' * 4  # each count in 2 bits
        text = header + '0' + '00' + f'{3:02b}' + ''.join(f'{byte:08b}' for byte in (9, 9, 9, alpha))
        packed = int(text.ljust(96, '0'), 2).to_bytes(12, 'big')
        if alpha:
            assert brush_box(packed, (1, 1)) == (0, 0, 1, 1)
        else:
            with pytest.raises(ValueError, match='nothing is painted'):
                brush_box(packed, (1, 1))
    for packed, size in ((BRUSH, (6, 11)), (BRUSH[:-3], (10, 6)), ([], (10, 6)), ([300], (10, 6))):
        with pytest.raises(ValueError, match=r'another image|too early|range'):
            brush_box(packed, size)
    write_image(tmp_path / 'a.png', (10, 6))
    brush = {
        'original_width': 10,
        'original_height': 6,
        'value': {'format': 'rle', 'rle': BRUSH, 'brushlabels': ['cat']},
    }
    broken = {**brush, 'value': {**brush['value'], 'rle': BRUSH[:9]}}
    reading = label_studio(tmp_path, [task('a.png', brush, broken)])
    assert boxes_of(reading) == {'a.png': [('cat', (3, 2, 5, 2))]}
    assert left_out(reading) == {('boxes', 'a shape whose place is not made of numbers'): 1}


def test_coco_masks_become_boxes(tmp_path: Path) -> None:
    write_image(tmp_path / 'a.jpg')
    pixels = np.zeros((50, 100), np.uint8, order='F')
    pixels[20:40, 10:50] = 1
    packed = coco_mask.encode(pixels)
    runs = [10 * 50 + 20, *[20, 30] * 39, 20, 50 * 50 + 10]  # down the columns, from the first corner
    masks = [
        {'size': [50, 100], 'counts': packed['counts'].decode()},
        {'size': [50, 100], 'counts': runs},
        [[10, 20, 30, 20, 30, 40], [40, 25, 50, 25, 50, 30]],
    ]
    annotations = [{'id': i, 'image_id': 7, 'category_id': i, 'segmentation': mask} for i, mask in enumerate(masks, 1)]
    annotations.append({'id': 9, 'image_id': 7, 'category_id': 1, 'bbox': [1, 2, 3, 4], 'segmentation': []})
    annotations.append({'id': 10, 'image_id': 7, 'category_id': 1})
    content = {
        'images': [{'id': 7, 'file_name': 'a.jpg', 'width': 100, 'height': 50}],
        'annotations': annotations,
        'categories': [{'id': i, 'name': f'class {i}'} for i in (1, 2, 3)],
    }
    path = write_text(tmp_path / 'masks.json', json.dumps(content))
    assert lacks_boxes(path)
    reading = read_coco_masks(Folder(tmp_path), [path])
    box = (10, 20, 40, 20)
    expected = [('class 1', box), ('class 2', box), ('class 3', box), ('class 1', (1, 2, 3, 4))]
    assert boxes_of(reading) == {'a.jpg': expected}
    assert changed(reading) == {'masks converted to boxes': 3}
    assert left_out(reading) == {('boxes', 'neither a box nor a mask that can be read'): 1}
    content['annotations'] = annotations[3:4]
    assert not lacks_boxes(write_text(path, json.dumps(content)))

"""Boxes that cannot be learnt: counted before training, and never among the targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import encoded, random_image
from mmdet.datasets import CocoDataset
from mmdet.structures.bbox import HorizontalBoxes
from pipelines import SCALES, built, check_laws, pipeline, run

from mmdet_iouquery.datasets.coco.checks import check_coco
from mmdet_iouquery.datasets.transforms import CleanBoxes

NAN, INF = float('nan'), float('inf')
WIDTH, HEIGHT = 64, 48
GOOD = [10, 5, 20, 30]  # x, y, w, h
USELESS = {
    'no width': [1, 2, 0, 5],
    'no height': [1, 2, 5, 0],
    'negative width': [30, 2, -5, 5],
    'negative height': [1, 20, 5, -5],
    'right of the image': [64, 2, 5, 5],
    'left of the image': [-9, 2, 9, 5],
    'above the image': [1, -5, 5, 5],
    'below the image': [1, 48, 5, 5],
    'nan x': [NAN, 2, 5, 5],
    'nan y': [1, NAN, 5, 5],
    'nan width': [1, 2, NAN, 5],
    'nan height': [1, 2, 5, NAN],
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / 'one.png'
    path.write_bytes(encoded(random_image(WIDTH, HEIGHT), 'PNG'))
    return path


def coco(image: Path, annotations: list[dict[str, Any]]) -> Path:
    """A set of one image with these annotations, besides a good one."""
    fields = [dict(bbox=GOOD, area=600), *annotations]
    content = dict(
        images=[dict(id=1, file_name=image.name, width=WIDTH, height=HEIGHT)],
        annotations=[dict(dict(id=i, image_id=1, category_id=1, iscrowd=0), **f) for i, f in enumerate(fields)],
        categories=[dict(id=1, name='a'), dict(id=2, name='b'), dict(id=3, name='c')],
    )
    path = image.with_suffix('.json')
    path.write_text(json.dumps(content))
    return path


def targets(name: str, image: Path, ann_file: Path) -> Any:
    dataset = CocoDataset(
        ann_file=str(ann_file),
        data_prefix=dict(img=str(image.parent)),
        metainfo=dict(classes=('a', 'b', 'c')),
        pipeline=pipeline(name),
    )
    packed = dataset[0]
    check_laws(packed, SCALES[name])
    return packed['data_samples']


@pytest.mark.parametrize('name', SCALES)
def test_useless_boxes_of_a_coco_file_are_counted_and_no_targets(name: str, image: Path) -> None:
    boxes = [dict(bbox=box, area=25, category_id=2) for box in USELESS.values()]
    boxes += [dict(bbox=GOOD, area=0, category_id=2), dict(bbox=GOOD, area=-1, category_id=2)]
    ann_file = coco(image, boxes)
    report = check_coco(ann_file, image.parent, ('a', 'b', 'c'))
    assert report.degenerate == len(boxes) and report.class_counts == {'a': 1, 'b': 0, 'c': 0}
    assert f'{len(boxes)} degenerate boxes' in report.warnings[0]
    labels = targets(name, image, ann_file).gt_instances.labels.tolist()
    assert 1 not in labels and labels in ([], [0])  # the crop may lose the good one


def test_an_area_that_is_nan_does_not_cost_the_box(image: Path) -> None:
    """Training does not read it; CocoDataset keeps the box, and so says the report."""
    ann_file = coco(image, [dict(bbox=[1, 1, 30, 30], area=NAN, category_id=2)])
    assert check_coco(ann_file, image.parent, ('a', 'b', 'c')).class_counts == {'a': 1, 'b': 1, 'c': 0}
    assert targets('quickstart', image, ann_file).gt_instances.labels.tolist() == [0, 1]


@pytest.mark.parametrize('name', SCALES)
def test_crowds_and_ignored_boxes_are_no_targets(name: str, image: Path) -> None:
    ann_file = coco(
        image,
        [dict(bbox=[0, 0, 64, 48], area=9, iscrowd=1, category_id=2), dict(bbox=GOOD, area=9, ignore=1, category_id=3)],
    )
    report = check_coco(ann_file, image.parent, ('a', 'b', 'c'))
    assert (report.crowd, report.ignored) == (1, 1) and report.class_counts == {'a': 1, 'b': 0, 'c': 0}
    sample = targets(name, image, ann_file)
    assert set(sample.gt_instances.labels.tolist()) <= {0}
    assert set(sample.ignored_instances.labels.tolist()) <= {1}
    if name == 'quickstart':
        assert sample.gt_instances.labels.tolist() == [0] and sample.ignored_instances.labels.tolist() == [1]


@pytest.mark.parametrize('name', SCALES)
def test_what_a_dataset_hands_on_unchecked_is_dropped_by_the_pipeline(name: str, image: Path) -> None:
    """Datasets of other kinds (XML, one's own) hand on boxes as their files have them."""
    useless = [[x, y, x + w, y + h] for x, y, w, h in USELESS.values()]
    useless += [[-INF, 2, 0, 9], [NAN] * 4, [INF, 1, INF, 9], [20, 9, 10, 4], [5, 5, 5.001, 40]]
    for _ in range(5):  # the crops of the larger pipeline are drawn
        packed = run(built(pipeline(name)), image, useless)
        check_laws(packed, SCALES[name])
        sample = packed['data_samples']
        assert len(sample.gt_instances) == 0 and len(sample.ignored_instances) == 0


def test_boxes_are_cut_before_the_image_is_expanded(image: Path) -> None:
    """A box over the border would otherwise grow onto the black around the image, and one outside lie there."""
    results = {'img_shape': (HEIGHT, WIDTH), 'gt_bboxes_labels': np.arange(5), 'gt_ignore_flags': np.zeros(5, bool)}
    corners = [[-5, -INF, 99, 9], [65, 1, 80, 9], [1, NAN, 9, 9], [9, 9, 4, 12], [1, 2, 3, 4]]
    cleaned = CleanBoxes()({**results, 'gt_bboxes': HorizontalBoxes(corners, dtype=torch.float32)})
    assert cleaned['gt_bboxes'].tensor.tolist() == [[0, 0, 64, 9], [1, 2, 3, 4]]
    assert cleaned['gt_bboxes_labels'].tolist() == [0, 4] and len(cleaned['gt_ignore_flags']) == 2
    kinds = [step['type'] for step in pipeline('coco')]
    assert kinds.index('LoadAnnotations') < kinds.index('CleanBoxes') < kinds.index('ExpandAndCrop')


def test_boxes_over_the_border_are_cut_and_kept(image: Path) -> None:
    packed = run(built(pipeline('quickstart')), image, [[-10, -10, 32, 24], [-INF, 0, INF, 24]])
    width, height = SCALES['quickstart']
    expected = [[0, 0, width / 2, height / 2], [0, 0, width, height / 2]]
    assert packed['data_samples'].gt_instances.bboxes.tensor.tolist() == expected

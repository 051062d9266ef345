"""Any annotation file: refused in a sentence, or trained and evaluated on as the check has said."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, note
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric

from mmdet_iouquery.datasets.coco.checks import checked_sets
from mmdet_iouquery.errors import InputError

WIDTH, HEIGHT = 64, 48
NAN = float('nan')
WORDS = st.sampled_from(['bolt', 'nut', 'Schraube ü', 'nut ', '0', ''])
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([2**53, 2**63, 10**400, 0.0, 1.0, -1.5, NAN, math.inf, -math.inf, 1e300]),
    st.sampled_from(['', '0', '1', 'false', 'bolt', 'é', '\ud800', 'a\0b']),
    st.lists(st.integers(0, 2), max_size=4),
    st.dictionaries(st.sampled_from(['id', 'x']), st.integers(0, 2), max_size=1),
)
SIDES = st.one_of(st.integers(1, 30), st.floats(1, 30, width=32), st.sampled_from([0, 0.5, -3, 64, NAN]))
PLACES = st.one_of(st.integers(-5, 60), st.floats(0, 60, width=32), st.sampled_from([-30, 64, 48, NAN]))
BOXES = st.tuples(PLACES, PLACES, SIDES, SIDES).map(list)
AREAS = st.one_of(st.integers(1, 4000), st.floats(0.5, 100), st.sampled_from([0, -1, NAN, 1e10, 1e11]))


@st.composite
def sets(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A file of a few records with boxes of all sorts, in half of the cases with a fault, and a class list."""
    ids = draw(st.sampled_from([lambda i: i, lambda i: 1000 - 3 * i, lambda i: f'id {i}', float]))
    names = draw(st.lists(WORDS, min_size=1, max_size=3, unique=True))
    images = [
        dict(id=ids(i + 1), file_name=f'{i}.png', width=WIDTH, height=HEIGHT) for i in range(draw(st.integers(1, 4)))
    ]
    categories = [dict(id=7 * k + 1, name=name) for k, name in enumerate(names)]
    annotations = [
        {
            'id': number + draw(st.sampled_from([0, 1])) if number == 0 else number + 1,
            'image_id': draw(st.sampled_from(images))['id'],
            'category_id': draw(st.sampled_from(categories))['id'],
            'bbox': draw(BOXES),
            'area': draw(AREAS),
            'iscrowd': draw(st.sampled_from([0, 0, 0, 0, 1, False, True])),
            **draw(st.sampled_from([{}, {}, {}, {'ignore': 0}, {'ignore': 1}])),
        }
        for number in range(draw(st.integers(0, 12)))
    ]
    content = dict(images=images, annotations=annotations, categories=categories)
    if draw(st.booleans()):
        spoil(draw, content)
    classes = draw(st.sampled_from([tuple(names), tuple(names), tuple(names[:1]), tuple(names[::-1])]))
    return content, classes


def spoil(draw: st.DrawFn, content: dict[str, Any]) -> None:
    """One key of one record, or one of the file, gets any value or none."""
    records = content[draw(st.sampled_from(sorted(content)))]
    target: Any = draw(st.sampled_from(records)) if records and draw(st.integers(0, 9)) else content
    key = draw(st.sampled_from(sorted(target)))
    if draw(st.integers(0, 4)):
        target[key] = draw(ANYTHING)
    else:
        del target[key]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp('annotations')
    for i in range(4):
        (made / f'{i}.png').touch()
    return made


def config(path: Path, classes: tuple[str, ...]) -> dict[str, Any]:
    dataset = dict(
        type='CocoDataset',
        ann_file=str(path),
        data_prefix=dict(img=str(path.parent)),
        metainfo=dict(classes=classes),
        pipeline=[],
    )
    evaluator = dict(type='CocoMetric', ann_file=str(path))
    return dict(
        train_dataloader=dict(dataset={**dataset, 'filter_cfg': dict(filter_empty_gt=True)}),
        val_dataloader=dict(dataset={**dataset, 'test_mode': True}),
        val_evaluator=evaluator,
    )


def opened(settings: dict[str, Any]) -> CocoDataset:
    return CocoDataset(**{key: value for key, value in settings.items() if key != 'type'})


@given(made=sets())
def test_what_passes_trains_and_evaluates_as_the_check_has_said(
    folder: Path, made: tuple[dict[str, Any], tuple[str, ...]]
) -> None:
    content, classes = made
    path = folder / 'ann.json'
    path.write_text(json.dumps(content), encoding='utf-8')
    cfg = config(path, classes)
    try:
        sets = checked_sets(cfg)
    except InputError as error:
        note(str(error))
        assert path.name in str(error) or 'metainfo.classes' in str(error)
        return
    reports = {data_set.split: checked.report for data_set, checked in sets}
    trained = list(opened(cfg['train_dataloader']['dataset']))
    assert len(trained) == reports['train'].images_used
    targets = Counter(
        classes[instance['bbox_label']]
        for info in trained
        for instance in info['instances']
        if not instance['ignore_flag']
    )
    assert dict(targets) == {name: count for name, count in reports['train'].class_counts.items() if count}
    names = {category['id']: category['name'] for category in content['categories']}
    for info in trained:
        annotations = [annotation for annotation in content['annotations'] if annotation['image_id'] == info['img_id']]
        labelled = {(tuple(annotation['bbox'][:2]), names[annotation['category_id']]) for annotation in annotations}
        assert {
            (tuple(instance['bbox'][:2]), classes[instance['bbox_label']]) for instance in info['instances']
        } <= labelled
    value, expected = evaluated(cfg, classes), expected_ap(content, classes, targets)
    if any(
        annotation['id'] == 0 and names[annotation['category_id']] in classes for annotation in content['annotations']
    ):
        assert value <= expected + 6e-4 and 'counts as missed' in str(reports['train'])
    else:
        assert value == pytest.approx(expected, abs=6e-4)  # three decimals are given


def evaluated(cfg: dict[str, Any], classes: tuple[str, ...]) -> float:
    """COCO's AP, by mmdet, of a model that finds every target of the validation set, and nothing else."""
    metric = CocoMetric(ann_file=cfg['val_evaluator']['ann_file'])
    metric.dataset_meta = dict(classes=classes)
    for info in opened(cfg['val_dataloader']['dataset']):
        kept = [instance for instance in info['instances'] if not instance['ignore_flag']]
        boxes = torch.tensor([instance['bbox'] for instance in kept], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([instance['bbox_label'] for instance in kept], dtype=torch.long)
        predicted = dict(bboxes=boxes, labels=labels, scores=torch.ones(len(kept)))
        size = (info['height'], info['width'])
        metric.process({}, [dict(img_id=info['img_id'], ori_shape=size, pred_instances=predicted)])
    return metric.evaluate(size=len(metric.results))['coco/bbox_mAP']


def expected_ap(content: dict[str, Any], classes: tuple[str, ...], targets: Counter[str]) -> float:
    """By COCO's rules: 1, but that boxes which are no targets count as missed unless they are crowds or of no area."""
    names = {category['id']: category['name'] for category in content['categories']}
    values = []
    for name in classes:
        counted = [
            annotation
            for annotation in content['annotations']
            if names[annotation['category_id']] == name
            and not annotation['iscrowd']
            and not (annotation['area'] < 0 or annotation['area'] > 1e10)
        ]
        if counted:
            recall = targets[name] / len(counted)
            reached = sum(k / 100 <= recall + 1e-9 for k in range(101)) if recall else 0
            values.append(reached / 101)
    return sum(values) / len(values)

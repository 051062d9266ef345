"""What COCO's evaluation asks of its files is asked before training; AP of perfect predictions shows what it does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric

from mmdet_iouquery.datasets import check_config
from mmdet_iouquery.errors import InputError

CLASSES = ('bolt', 'nut')


def content() -> dict[str, Any]:
    """Four images, a bolt and a nut each."""
    return dict(
        images=[dict(id=i, file_name=f'{i}.png', width=20 * i, height=48) for i in range(1, 5)],
        annotations=[
            dict(id=10 * i + k, image_id=i, category_id=k, bbox=[k, 2 * k, 12, 16], area=192, iscrowd=0)
            for i in range(1, 5)
            for k in (1, 2)
        ],
        categories=[dict(id=1, name='bolt'), dict(id=2, name='nut')],
    )


@pytest.fixture
def cfg(tmp_path: Path) -> dict[str, Any]:
    """Training and validation on the same file, as a first try has it."""
    for i in range(1, 5):
        (tmp_path / f'{i}.png').touch()
    (tmp_path / 'ann.json').write_text(json.dumps(content()), encoding='utf-8')
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='ann.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES),
    )
    return dict(
        train_dataloader=dict(dataset=dataset),
        val_dataloader=dict(dataset=copy.deepcopy(dataset)),
        val_evaluator=dict(type='CocoMetric', ann_file=str(tmp_path / 'ann.json')),
    )


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    made = content()
    change(made)
    path.write_text(json.dumps(made), encoding='utf-8')


def perfect_ap(cfg: dict[str, Any]) -> float:
    """AP of a model that finds every target of the validation set."""
    settings = {key: value for key, value in cfg['val_dataloader']['dataset'].items() if key != 'type'}
    metric = CocoMetric(**{key: value for key, value in cfg['val_evaluator'].items() if key != 'type'})
    metric.dataset_meta = dict(classes=CLASSES)
    for info in CocoDataset(**settings, pipeline=[]):
        kept = [instance for instance in info['instances'] if not instance['ignore_flag']]
        predicted = dict(
            bboxes=torch.tensor([instance['bbox'] for instance in kept], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([instance['bbox_label'] for instance in kept], dtype=torch.long),
            scores=torch.ones(len(kept)),
        )
        metric.process({}, [dict(img_id=info['img_id'], ori_shape=(48, 64), pred_instances=predicted)])
    return metric.evaluate(size=len(metric.results))['coco/bbox_mAP']


def warnings(cfg: dict[str, Any]) -> list[str]:
    return [warning for report in check_config(cfg) for warning in report.warnings]


def test_a_sound_file_scores_1(cfg: dict[str, Any]) -> None:
    assert warnings(cfg) == [] and perfect_ap(cfg) == 1.0


def test_a_file_that_is_trained_and_evaluated_on_is_judged_as_both(cfg: dict[str, Any], tmp_path: Path) -> None:
    """It is read once, for training; the evaluation's rules hold all the same."""
    rewrite(tmp_path / 'ann.json', lambda made: made['annotations'][0].pop('iscrowd'))
    with pytest.raises(KeyError, match='iscrowd'):
        perfect_ap(cfg)
    with pytest.raises(InputError, match=r"val_dataloader.dataset: 1 annotations of .* lack 'iscrowd'"):
        check_config(cfg)
    del cfg['val_dataloader']
    assert len(check_config(cfg)) == 1, 'training does not read it'


def test_a_set_that_another_metric_evaluates_is_not_asked_for_cocos_fields(cfg: dict[str, Any], tmp_path: Path) -> None:
    rewrite(tmp_path / 'ann.json', lambda made: made['annotations'][0].pop('iscrowd'))
    cfg['val_evaluator'] = dict(type='VOCMetric')
    assert len(check_config(cfg)) == 1
    cfg['val_evaluator'] = dict(type='CocoMetric')  # by what the data set hands on
    assert len(check_config(cfg)) == 1


def test_the_evaluators_own_file_is_judged_too(cfg: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / 'other.json'
    cfg['val_evaluator']['ann_file'] = str(other)
    for change, message in (
        (lambda made: made['annotations'][0].pop('iscrowd'), "1 annotations of .*other.json lack 'iscrowd'"),
        (lambda made: made['annotations'][0].update(iscrowd='0'), r'other.json: annotation id 11 has iscrowd "0"'),
        (lambda made: made['annotations'][0].update(id='a'), r'other.json have an id that is no number'),
        (lambda made: made['annotations'][0].update(bbox=[1, 2, '3', 4]), r'other.json: annotation id 11 has bbox'),
        (lambda made: made['categories'].reverse(), r'not in the order of .*other.json'),
        (lambda made: made['categories'][0].update(name='screw'), r"other.json lacks 1 of the 2 classes .*'bolt'"),
        (lambda made: [image.update(id=image['id'] + 1) for image in made['images']], r'image_id 1, which no image'),
    ):
        rewrite(other, change)
        with pytest.raises(InputError, match=message):
            check_config(cfg)


def test_images_that_the_evaluators_file_lacks(cfg: dict[str, Any], tmp_path: Path) -> None:
    def without_the_last(made: dict[str, Any]) -> None:
        made['images'].pop()
        made['annotations'] = [annotation for annotation in made['annotations'] if annotation['image_id'] != 4]

    cfg['val_evaluator']['ann_file'] = str(tmp_path / 'other.json')
    rewrite(tmp_path / 'other.json', without_the_last)
    with pytest.raises(AssertionError, match='do not correspond'):
        perfect_ap(cfg)
    with pytest.raises(InputError, match=r"other.json, the evaluator's file, lacks 1 of 4 images of the set, .*id 4,"):
        check_config(cfg)


@pytest.mark.parametrize(
    ('settings', 'images', 'boxes', 'expected'),
    [(dict(indices=2), 2, 4, 0.5), (dict(filter_cfg=dict(min_size=30)), 1, 2, 0.75)],
    ids=['indices', 'filter'],
)
def test_images_that_are_never_detected_on_count_as_missed(
    cfg: dict[str, Any], settings: dict[str, Any], images: int, boxes: int, expected: float
) -> None:
    cfg['val_dataloader']['dataset'].update(settings)
    assert perfect_ap(cfg) == pytest.approx(expected, abs=0.006)  # AP is a mean over 101 recalls, of which 0 is one
    (warning,) = warnings(cfg)
    assert warning.startswith(f'{images} images of ') and f'with {boxes} boxes are not in the evaluated set' in warning
    cfg['val_dataloader']['dataset'].update(test_mode=True)
    assert bool(warnings(cfg)) is ('indices' in settings)


def test_images_filtered_for_want_of_a_class_miss_nothing(cfg: dict[str, Any], tmp_path: Path) -> None:
    rewrite(tmp_path / 'ann.json', lambda made: made['annotations'].pop(0))
    for dataset in (cfg['train_dataloader']['dataset'], cfg['val_dataloader']['dataset']):
        dataset['metainfo'] = dict(classes=('bolt',))
    cfg['val_dataloader']['dataset']['filter_cfg'] = dict(filter_empty_gt=True)
    assert not any('not in the evaluated set' in warning for warning in warnings(cfg))


def test_ignored_boxes_count_as_missed_and_crowds_do_not(cfg: dict[str, Any], tmp_path: Path) -> None:
    """COCO's evaluation sets ``ignore`` itself, by ``iscrowd``."""
    rewrite(tmp_path / 'ann.json', lambda made: [annotation.update(ignore=1) for annotation in made['annotations'][:2]])
    assert perfect_ap(cfg) == pytest.approx(0.75, abs=0.006)  # AP is a mean over 101 recalls, of which 0 is one
    (warning,) = warnings(cfg)
    assert warning.startswith('2 annotations are marked ignore: training drops them, ') and 'missed' in warning
    rewrite(
        tmp_path / 'ann.json', lambda made: [annotation.update(iscrowd=1) for annotation in made['annotations'][:2]]
    )
    assert perfect_ap(cfg) == 1.0 and warnings(cfg) == []


def test_categories_sorted_by_the_metric(cfg: dict[str, Any], tmp_path: Path) -> None:
    rewrite(tmp_path / 'other.json', lambda made: made['categories'].reverse())
    cfg['val_evaluator'].update(ann_file=str(tmp_path / 'other.json'), sort_categories=True)
    assert perfect_ap(cfg) == 1.0
    assert warnings(cfg) == [f'the evaluator reads another file than the dataset: {tmp_path / "other.json"}']


def test_a_validation_set_of_crowds_alone_is_refused(cfg: dict[str, Any], tmp_path: Path) -> None:
    """Its AP would be -1, with status 0."""
    rewrite(tmp_path / 'crowds.json', lambda made: [annotation.update(iscrowd=1) for annotation in made['annotations']])
    cfg['val_dataloader']['dataset']['ann_file'] = 'crowds.json'
    cfg['val_evaluator']['ann_file'] = str(tmp_path / 'crowds.json')
    with pytest.raises(InputError, match=r'val_dataloader.dataset: .*none of its 8 .*8 marked iscrowd'):
        check_config(cfg)

"""Each fault of a set or a config gives one message that names what, where and the remedy."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmdet_iouquery.datasets.coco.checks import check_coco, check_config
from mmdet_iouquery.errors import InputError

CLASSES = ('cat', 'dog', 'ox')


def _content() -> dict[str, Any]:
    """Three images of 64 x 48 and four boxes; category ids with gaps."""
    boxes = [
        (11, 1, 3, [1, 2, 10, 20]),
        (12, 1, 17, [30, 4, 8, 8]),
        (13, 2, 900, [0, 0, 64, 48]),
        (14, 2, 3, [5, 5, 9, 9]),
    ]
    return dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=64, height=48) for i in (1, 2, 5)],
        annotations=[
            dict(id=i, image_id=image, category_id=category, bbox=bbox, area=bbox[2] * bbox[3], iscrowd=0)
            for i, image, category, bbox in boxes
        ],
        categories=[dict(id=i, name=name) for i, name in zip((3, 17, 900), CLASSES)],
    )


class Made:
    """A set on disk that a test can spoil."""

    def __init__(self, folder: Path) -> None:
        self.content = _content()
        self.file = folder / 'ann.json'
        self.images = folder / 'images'
        self.images.mkdir(parents=True)
        for image in self.content['images']:
            (self.images / image['file_name']).touch()

    def check(self, **kwargs: Any) -> Any:
        self.file.write_text(json.dumps(self.content))
        return check_coco(self.file, self.images, kwargs.pop('classes', CLASSES), **kwargs)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_counts_of_a_sound_set(made: Made) -> None:
    made.content['annotations'][3]['iscrowd'] = 1
    report = made.check()
    assert (report.images, report.images_used, report.images_without_boxes) == (3, 3, 1)
    assert (report.annotations, report.crowd, report.degenerate) == (4, 1, 0)
    assert report.class_counts == {'cat': 1, 'dog': 1, 'ox': 1} and report.dropped == {}, 'a crowd is no target'
    assert report.warnings == ()
    assert 'boxes per class: cat 1, dog 1, ox 1' in str(report)


def test_filter_leaves_out_empty_and_small_images(made: Made) -> None:
    made.content['images'][0].update(width=20)
    made.content['annotations'][1]['bbox'] = [1, 1, 5, 5]
    assert made.check(filter_empty=True).images_used == 2
    assert made.check(filter_empty=True, min_size=32).images_used == 1
    assert made.check(min_size=32).images_used == 2


DEGENERATE = {
    'no width': [1, 2, 0, 5],
    'negative height': [1, 2, 5, -5],
    'under a pixel': [1, 2, 0.9, 5],
    'nan corner': [float('nan'), 2, 5, 5],
    'nan width': [1, 2, float('nan'), 5],
    'right of the image': [64, 2, 5, 5],
    'above the image': [1, -5, 5, 5],
}


@pytest.mark.parametrize('kind', DEGENERATE)
def test_degenerate_boxes_are_counted(made: Made, kind: str) -> None:
    made.content['annotations'][1]['bbox'] = DEGENERATE[kind]
    report = made.check()
    assert report.degenerate == 1 and report.class_counts == {'cat': 2, 'dog': 0, 'ox': 1}
    assert '1 degenerate boxes' in report.warnings[0] and 'ids 12' in report.warnings[0]
    assert "1 of 3 classes have no box: 'dog'" in report.warnings[1]


def test_degenerate_is_what_coco_dataset_drops(made: Made) -> None:
    """Counted beside mmdet's own reading of the same file."""
    from mmdet.datasets import CocoDataset

    for i, bbox in enumerate([*DEGENERATE.values(), [-3, -3, 5, 5], [60, 40, 50, 50], [1, 1, 1, 1]]):
        area = 1 if i % 2 else 30
        made.content['annotations'].append(
            dict(id=100 + i, image_id=5, category_id=17, bbox=bbox, area=area, iscrowd=i % 3 == 0)
        )
    made.content['annotations'][0]['area'] = 0
    made.content['annotations'][1]['ignore'] = 1
    report = made.check(classes=('cat', 'dog'))
    dataset = CocoDataset(
        ann_file=str(made.file), data_prefix=dict(img=str(made.images)), metainfo=dict(classes=('cat', 'dog'))
    )
    instances = [instance for info in dataset for instance in info['instances']]
    labels = [instance['bbox_label'] for instance in instances if not instance['ignore_flag']]
    assert report.class_counts == {'cat': labels.count(0), 'dog': labels.count(1)} == {'cat': 1, 'dog': 2}
    assert report.crowd == sum(instance['ignore_flag'] for instance in instances) == 1
    assert (report.degenerate, report.ignored, report.beyond_border) == (8, 1, 2)


def test_images_used_are_those_that_coco_dataset_keeps(made: Made) -> None:
    from mmdet.datasets import CocoDataset

    made.content['images'].append(dict(id=9, file_name='9.jpg', width=10, height=48))
    (made.images / '9.jpg').touch()
    made.content['annotations'][2]['bbox'] = [0, 0, 0, 48]  # the only box of image 2 that is asked for
    both = dict(filter_empty_gt=True, min_size=48)
    for filters, expected in ((dict(filter_empty_gt=True), 2), (dict(min_size=48), 3), (both, 2), ({}, 4)):
        report = made.check(
            classes=('dog', 'ox'),
            filter_empty=filters.get('filter_empty_gt', False),
            min_size=filters.get('min_size', 0),
        )
        dataset = CocoDataset(
            ann_file=str(made.file),
            data_prefix=dict(img=str(made.images)),
            metainfo=dict(classes=('dog', 'ox')),
            filter_cfg=filters,
        )
        assert report.images_used == len(dataset) == expected


def test_categories_outside_the_class_list(made: Made) -> None:
    report = made.check(classes=('cat', 'dog'))
    assert report.dropped == {'ox': 1}
    assert (
        "1 categories of the file are not in the class list; their 1 annotations are dropped ('ox' 1)"
        in report.warnings[0]
    )


def test_class_list_in_another_order_than_the_file(made: Made) -> None:
    with pytest.raises(InputError, match=r"not in the order of .*ann\.json.* write classes=\('cat', 'dog', 'ox'\)"):
        made.check(classes=('ox', 'dog', 'cat'))
    with pytest.raises(InputError, match=r"write classes=\('cat', 'ox'\)"):
        made.check(classes=('ox', 'cat'))
    assert made.check(classes=('cat', 'ox')).class_counts == {'cat': 2, 'ox': 1}


def test_missing_iscrowd(made: Made) -> None:
    del made.content['annotations'][0]['iscrowd']
    report = made.check()
    assert report.without_iscrowd == 1 and "lack 'iscrowd'" in report.warnings[0]


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one entry, e.g. ``annotations.1.image_id``; the value ``...`` deletes it."""

    def change(content: Any) -> None:
        *parents, last = path.split('.')
        for key in parents:
            content = content[int(key) if key.isdigit() else key]
        index = int(last) if last.isdigit() else last
        if value is ...:
            del content[index]
        else:
            content[index] = value

    return change


FAULTS = [
    ('images', ..., r'lacks images \(it has annotations, categories\)'),
    ('annotations', ..., r'lacks annotations \(it has images, categories\)'),
    ('images', [], 'images is empty'),
    ('annotations', [], 'none of its 0 annotations'),
    ('categories', [], 'categories is empty'),
    ('annotations', {'1': 2}, 'annotation entries must be a list'),
    ('annotations.1.category_id', 4, r'annotation id 12 has category_id 4, .*category ids: 3, 17, 900'),
    ('annotations.1.image_id', 3, r'annotation id 12 has image_id 3, .*image ids: 1, 2, 5'),
    ('annotations.1.image_id', '1', "annotation id 12 has image_id '1'"),
    ('annotations.1.id', 11, 'annotation id 11 is used 2 times'),
    ('images.1.id', 1, 'image id 1 is used 2 times'),
    ('categories.1.id', 3, 'category id 3 is used 2 times'),
    ('categories.1.name', 'cat', "category name 'cat' is used 2 times"),
    ('annotations.2.area', ..., r"annotation id 13 has no 'area'.*width \* height"),
    ('annotations.2.bbox', ..., "annotation id 13 has no 'bbox'"),
    ('annotations.2.id', ..., "annotation number 2 of the list has no 'id'"),
    ('images.2.height', ..., "image id 5 has no 'height'"),
    ('images.2.width', '64', r"image id 5 has width, height \('64', 48\)"),
    ('annotations.2.bbox', [1, 2, 3], r'annotation id 13 has bbox \[1, 2, 3\]; write 4'),
    ('annotations.2.bbox', [1, 2, None, 4], r'annotation id 13 has bbox \[1, 2, None, 4\]'),
    ('annotations.2.bbox', [1, 2, float('inf'), 4], 'annotation id 13 is infinite'),
    ('annotations.2.area', '9', "annotation id 13 has area '9'"),
]


@pytest.mark.parametrize(('path', 'value', 'message'), FAULTS, ids=[f'{path}={value}' for path, value, _ in FAULTS])
def test_faults_of_the_content(made: Made, path: str, value: Any, message: str) -> None:
    _set(path, value)(made.content)
    with pytest.raises(InputError, match=message) as error:
        made.check()
    assert str(made.file) in str(error.value)


def test_missing_and_broken_files(made: Made) -> None:
    made.check()
    with pytest.raises(InputError, match=r'no annotation file .*other\.json; the folder .* has ann\.json'):
        check_coco(made.file.with_name('other.json'), None, CLASSES)
    whole = json.dumps(made.content, indent=1)
    made.file.write_text(whole[:200])
    with pytest.raises(InputError, match=r'ann\.json ends in mid-air .* line \d+, column \d+\); it was cut short'):
        check_coco(made.file, None, CLASSES)
    made.file.write_text('{\n "images": [1, 2,, 3]}')
    with pytest.raises(InputError, match=r'ann\.json is not valid JSON: .* line 2, column 18'):
        check_coco(made.file, None, CLASSES)
    made.file.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(
        InputError, match=r'ann\.json cannot be read: it is not in UTF-8 .*; convert it, .* iconv -f LATIN1'
    ):
        check_coco(made.file, None, CLASSES)
    made.file.write_text('\n')
    with pytest.raises(InputError, match=r'ann\.json is empty'):
        check_coco(made.file, None, CLASSES)
    made.file.write_text('[]')
    with pytest.raises(InputError, match=r'holds a list.*results'):
        check_coco(made.file, None, CLASSES)


def test_a_byte_order_mark_is_refused_as_mmdet_stops_at_it(made: Made) -> None:
    from mmdet.datasets import CocoDataset

    made.file.write_text(json.dumps(made.content), encoding='utf-8-sig')
    with pytest.raises(json.JSONDecodeError):
        CocoDataset(ann_file=str(made.file), data_prefix=dict(img=str(made.images)))
    with pytest.raises(InputError, match=r'ann\.json begins with a byte order mark, .*save it as "UTF-8"'):
        check_coco(made.file, None, CLASSES)


def test_filter_that_leaves_nothing(made: Made) -> None:
    with pytest.raises(
        InputError, match=r"filter_cfg=\{'filter_empty_gt': True, 'min_size': 49\} .* leave none of its 3 images"
    ):
        made.check(filter_empty=True, min_size=49)


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        ('person', r"classes='person' is a string, whose 6 letters.*classes=\('person',\)"),
        ((), 'one or more names'),
        ((1, 2), 'one or more names'),
        (('cat', 'dog', 'cat'), "classes has 'cat' 2 times"),
        (
            ('cat', 'Dog '),
            r"lacks 1 of the 2 classes asked for: 'Dog '; did you mean 'dog'\? It has 'cat', 'dog', 'ox'",
        ),
        (('zebra', 'unicorn', 'cat'), r"lacks 2 of the 3 classes asked for: 'zebra', 'unicorn'\. It has"),
    ],
)
def test_class_lists(made: Made, classes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made.check(classes=classes)


def test_missing_image_files(made: Made) -> None:
    for i in range(8):
        made.content['images'].append(dict(id=100 + i, file_name=f'deep/{i}.jpg', width=9, height=9))
    (made.images / 'deep').mkdir()
    (made.images / 'deep/3.jpg').touch()
    with pytest.raises(InputError, match=r'7 of 11 image files are not in .*images: ') as error:
        made.check()
    assert "'deep/0.jpg'" in str(error.value) and str(error.value).count('deep/') == 5
    with pytest.raises(InputError, match=r'image folder .*nowhere does not exist'):
        check_coco(made.file, made.images.parent / 'nowhere', CLASSES)


# Configs


@pytest.fixture
def cfg(tmp_path: Path) -> dict[str, Any]:
    """A sound config of a training and a validation set."""
    for split in ('train', 'val'):
        Made(tmp_path / split).check()

    def dataset(split: str) -> dict[str, Any]:
        return dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file=f'{split}/ann.json',
            data_prefix=dict(img=f'{split}/images/'),
            metainfo=dict(classes=CLASSES),
            test_mode=split == 'val',
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
        )

    evaluator = dict(type='CocoMetric', ann_file=str(tmp_path / 'val/ann.json'))
    return dict(
        model=dict(backbone=dict(type='ResNet', num_classes=1000), bbox_head=dict(type='Head', num_classes=3)),
        train_dataloader=dict(dataset=dataset('train')),
        val_dataloader=dict(dataset=dataset('val')),
        test_dataloader=dict(dataset=dataset('val')),
        val_evaluator=evaluator,
        test_evaluator=copy.deepcopy(evaluator),
    )


def test_sound_config(cfg: dict[str, Any]) -> None:
    before = copy.deepcopy(cfg)
    train, val = check_config(cfg)
    assert (train.where, val.where) == ('train_dataloader.dataset', 'val_dataloader.dataset')
    assert (train.images_used, val.images_used) == (2, 3)
    assert cfg == before


def test_an_mmengine_config_is_taken(cfg: dict[str, Any]) -> None:
    from mmengine.config import Config

    assert len(check_config(Config(cfg))) == 2
    cfg['model']['bbox_head']['num_classes'] = 80
    with pytest.raises(InputError, match=r'model\.bbox_head\.num_classes=80'):
        check_config(Config(cfg))


def test_wrappers_are_looked_into(cfg: dict[str, Any]) -> None:
    plain = cfg['train_dataloader']['dataset']
    other = copy.deepcopy(cfg['val_dataloader']['dataset'])
    other['metainfo']['classes'] = CLASSES[:2]
    repeated = dict(type='RepeatDataset', times=2, dataset=dict(type='ClassBalancedDataset', dataset=other))
    cfg['train_dataloader']['dataset'] = dict(type='mmdet.ConcatDataset', datasets=[plain, repeated])
    with pytest.raises(InputError, match=r'train_dataloader\.dataset\.datasets\[1\]\.dataset\.dataset'):
        check_config(cfg)
    other['metainfo']['classes'] = CLASSES
    assert [report.where for report in check_config(cfg)] == [
        'train_dataloader.dataset.datasets[0]',
        'train_dataloader.dataset.datasets[1].dataset.dataset',
    ], 'the second is the validation set, which is reported once'


def test_what_is_not_looked_at_is_said(cfg: dict[str, Any]) -> None:
    cfg['train_dataloader']['dataset'].update(data_root='s3://bucket/coco')
    cfg['val_dataloader']['dataset']['type'] = 'XMLDataset'
    cfg['test_dataloader']['dataset']['backend_args'] = dict(backend='petrel')
    cfg['val_evaluator'] = None
    cfg['test_evaluator']['ann_file'] = 'petrel://bucket/ann.json'
    not_here = 'its annotations are not on this machine'
    assert [report.warnings for report in check_config(cfg)] == [
        (f'not checked: CocoDataset of train_dataloader.dataset: {not_here} (s3://bucket/coco)',),
        ('not checked: XMLDataset of val_dataloader.dataset: it is no class of COCO files',),
        (f'not checked: CocoDataset of test_dataloader.dataset: {not_here} (petrel)',),
        (f'not checked: CocoMetric of test_evaluator: {not_here} (petrel://bucket/ann.json)',),
    ]


def test_remote_images_of_a_local_file(cfg: dict[str, Any]) -> None:
    cfg['train_dataloader']['dataset']['data_prefix']['img'] = 'https://host/images'
    train, val = check_config(cfg)
    assert train.warnings == ('not checked: whether the image files exist, as their folder is not on this machine',)
    assert val.warnings == ()


@pytest.mark.parametrize('number', [1, 2, 4, 80])
def test_num_classes_of_the_head(cfg: dict[str, Any], number: int) -> None:
    cfg['model']['bbox_head']['num_classes'] = number
    with pytest.raises(InputError, match=rf'model\.bbox_head\.num_classes={number}, but there are 3 classes') as error:
        check_config(cfg)
    assert 'set model.bbox_head.num_classes=3' in str(error.value)


def test_num_classes_in_lists_of_heads(cfg: dict[str, Any]) -> None:
    cfg['model']['roi_head'] = dict(bbox_head=[dict(num_classes=3), dict(num_classes=5)])
    cfg['model']['rpn_head'] = dict(num_classes=1)
    with pytest.raises(InputError, match=r'model\.roi_head\.bbox_head\[1\]\.num_classes=5'):
        check_config(cfg)


def test_cocos_own_classes_where_none_are_given(cfg: dict[str, Any]) -> None:
    del cfg['train_dataloader']['dataset']['metainfo']
    with pytest.raises(InputError, match=r"80 classes of train_dataloader\.dataset \(CocoDataset's own list") as error:
        check_config(cfg)
    assert '3 of val_dataloader.dataset' in str(error.value)
    for split in ('val', 'test'):
        del cfg[f'{split}_dataloader']['dataset']['metainfo']
    cfg['model']['bbox_head']['num_classes'] = 80
    with pytest.raises(InputError, match=r"train_dataloader\.dataset: .*lacks 78 of the 80 .*CocoDataset's own list"):
        check_config(cfg)


def test_the_bare_string_and_the_class_file(cfg: dict[str, Any], tmp_path: Path) -> None:
    metainfo = cfg['train_dataloader']['dataset']['metainfo']
    metainfo['classes'] = 'cat'
    with pytest.raises(InputError, match=r"train_dataloader\.dataset\.metainfo\.classes: classes='cat' is a string"):
        check_config(cfg)
    (tmp_path / 'names.txt').write_text('cat\ndog\nox\n')
    metainfo['classes'] = str(tmp_path / 'names.txt')
    assert check_config(cfg)[0].class_counts == {'cat': 2, 'dog': 1, 'ox': 1}
    cfg['train_dataloader']['dataset']['metainfo'] = dict(CLASSES=CLASSES)
    with pytest.raises(InputError, match='does not read CLASSES'):
        check_config(cfg)


def test_faults_of_a_set_name_the_place_in_the_config(cfg: dict[str, Any]) -> None:
    cfg['val_dataloader']['dataset']['ann_file'] = 'val/absent.json'
    with pytest.raises(InputError, match=r'val_dataloader\.dataset: no annotation file .*absent\.json'):
        check_config(cfg)
    del cfg['val_dataloader']['dataset']['data_prefix']
    with pytest.raises(InputError, match=r'val_dataloader\.dataset: .*data_prefix=dict\(img='):
        check_config(cfg)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_data_that_are_not_there_are_named_by_their_set(split: str, cfg: dict[str, Any]) -> None:
    """Not by the evaluator, which names the same file rightly."""
    cfg[f'{split}_dataloader']['dataset']['data_root'] = '/nowhere'
    cfg['val_evaluator'] = dict(type='CocoMetric', ann_file='/nowhere/val/ann.json', metric='bbox')
    with pytest.raises(InputError, match=r'no annotation file /nowhere') as refusal:
        check_config(cfg)
    assert 'val_evaluator' not in str(refusal.value)


def test_evaluator_files(cfg: dict[str, Any], tmp_path: Path) -> None:
    cfg['val_evaluator'] = [dict(type='Other'), dict(type='CocoMetric', ann_file='val/ann.json')]
    with pytest.raises(
        InputError, match=r'val_evaluator\.ann_file: no file val/ann\.json; .*not joined with data_root'
    ):
        check_config(cfg)
    cfg['val_evaluator'] = dict(type='CocoMetric', ann_file=str(tmp_path / 'train/ann.json'))
    assert 'the evaluator reads another file' in check_config(cfg)[1].warnings[-1]


def _rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_categories_in_different_orders(cfg: dict[str, Any], tmp_path: Path) -> None:
    _rewrite(tmp_path / 'val/ann.json', lambda content: content['categories'].reverse())
    with pytest.raises(InputError, match=r'val_dataloader.dataset: the class list is not in the order of .*val/ann'):
        check_config(cfg)


@pytest.mark.parametrize('metric', ['CocoMetric', 'FastCocoMetric'])
def test_the_evaluators_own_file_in_another_order(cfg: dict[str, Any], tmp_path: Path, metric: str) -> None:
    """CocoMetric turns labels into category ids by the order of the file that it reads."""
    other = tmp_path / 'val/evaluated.json'
    other.write_text((tmp_path / 'val/ann.json').read_text())
    cfg['val_evaluator'] = dict(type=metric, ann_file=str(other))
    assert 'the evaluator reads another file' in check_config(cfg)[1].warnings[-1]
    _rewrite(other, lambda content: content['categories'].reverse())
    with pytest.raises(InputError, match=r'val_dataloader.dataset: the class list is not in the order of .*evaluated'):
        check_config(cfg)


def test_missing_iscrowd_stops_evaluation_only(cfg: dict[str, Any], tmp_path: Path) -> None:
    _rewrite(tmp_path / 'train/ann.json', lambda content: content['annotations'][0].pop('iscrowd'))
    assert "lack 'iscrowd'" in check_config(cfg)[0].warnings[0]
    _rewrite(tmp_path / 'val/ann.json', lambda content: content['annotations'][0].pop('iscrowd'))
    with pytest.raises(InputError, match=r"val_dataloader\.dataset: 1 annotations of .* lack 'iscrowd'"):
        check_config(cfg)


def test_annotation_ids_that_evaluation_cannot_tell_from_none_or_not_read(cfg: dict[str, Any], tmp_path: Path) -> None:
    """COCO's evaluation writes the id of what a detection found into an array of numbers, in which 0 says nothing."""

    def renamed(number: Any) -> Callable[[dict[str, Any]], None]:
        return lambda content: content['annotations'][0].update(id=number)

    for split in ('train', 'val'):
        _rewrite(tmp_path / split / 'ann.json', renamed(0))
    assert 'counts as missed' in check_config(cfg)[1].warnings[0]
    _rewrite(tmp_path / 'train/ann.json', renamed('b12'))
    check_config(cfg)  # training does not mind
    _rewrite(tmp_path / 'val/ann.json', renamed('a11'))
    with pytest.raises(InputError, match=r"val_dataloader.dataset: 1 annotations .* number them from 1 \(found: 'a11'"):
        check_config(cfg)


def test_a_test_set_without_annotations_may_be_submitted(cfg: dict[str, Any], tmp_path: Path) -> None:
    Made(tmp_path / 'hidden').check()
    _rewrite(tmp_path / 'hidden/ann.json', lambda content: content.pop('annotations'))
    cfg['test_dataloader']['dataset'].update(ann_file='hidden/ann.json', data_prefix=dict(img='hidden/images'))
    cfg['test_evaluator'] = dict(type='CocoMetric', format_only=True, outfile_prefix='out')
    assert check_config(cfg)[2].annotations == 0
    cfg['test_evaluator']['format_only'] = False
    with pytest.raises(InputError, match=r'test_dataloader\.dataset: .*lacks annotations'):
        check_config(cfg)

"""Mistakes that run through a whole annotation file, as exporters make them, are refused by what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from mmdet_iouquery.datasets import check_coco, check_config
from mmdet_iouquery.datasets.coco.checks import checked_sets
from mmdet_iouquery.errors import InputError

CLASSES = ('bolt', 'nut')
Change = Callable[[dict[str, Any]], Any]


def content() -> dict[str, Any]:
    """Four images of 64 x 48 px with a bolt and a nut each."""
    boxes = [[10 * k, 8 * k, 20, 16] for k in (1, 2)]
    return dict(
        images=[dict(id=i, file_name=f'{i}.png', width=64, height=48) for i in range(1, 5)],
        annotations=[
            dict(id=10 * i + k, image_id=i, category_id=k, bbox=boxes[k - 1], area=320, iscrowd=0)
            for i in range(1, 5)
            for k in (1, 2)
        ],
        categories=[dict(id=1, name='bolt'), dict(id=2, name='nut')],
    )


def written(folder: Path, change: Change = lambda made: None) -> Path:
    made = content()
    change(made)
    (folder / 'ann.json').write_text(json.dumps(made), encoding='utf-8')
    return folder / 'ann.json'


def every(**fields: Any) -> Change:
    """All annotations with these fields."""
    return lambda made: [annotation.update(fields) for annotation in made['annotations']]


def corners(made: dict[str, Any]) -> None:
    for annotation in made['annotations']:
        x, y, width, height = annotation['bbox']
        annotation['bbox'] = [x + 14, y + 8, x + 14 + width, y + 8 + height]


def relative(made: dict[str, Any]) -> None:
    for annotation in made['annotations']:
        annotation['bbox'] = [value / size for value, size in zip(annotation['bbox'], (64, 48, 64, 48))]


def ids_as_text(kind: str) -> Change:
    return lambda made: [
        annotation.update({f'{kind}_id': str(annotation[f'{kind}_id'])}) for annotation in made['annotations']
    ]


def named(*names: Any) -> Change:
    return lambda made: [category.update(name=name) for category, name in zip(made['categories'], names)]


FAULTS: dict[str, tuple[Change, str]] = {
    'crowds': (every(iscrowd=1), r'none of its 8 annotations is a target \(8 marked iscrowd; write iscrowd=0'),
    'crowds, true': (every(iscrowd=True), r'none of its 8 .*8 marked iscrowd'),
    'crowd "0"': (every(iscrowd='0'), r'annotation id 11 has iscrowd "0" \(8 such annotations\); write 0 or 1'),
    'crowd "false"': (every(iscrowd='false'), r'annotation id 11 has iscrowd "false"'),
    'crowd -1': (every(iscrowd=-1), r'annotation id 11 has iscrowd -1 '),
    'crowd null': (every(iscrowd=None), r'annotation id 11 has iscrowd null'),
    'crowd [0]': (every(iscrowd=[0]), r'annotation id 11 has iscrowd \[0\]'),
    'crowd NaN': (every(iscrowd=float('nan')), r'annotation id 11 has iscrowd NaN'),
    'ignore': (every(ignore=1), r'none of its 8 .*8 marked ignore; write ignore=0'),
    'ignore "no"': (every(ignore='no'), r'annotation id 11 has ignore "no"'),
    'area': (every(area=0), r'8 of its 8 boxes have an area of 0 or less.*write area = width \* height \(id 11: bbox'),
    'sides': (every(bbox=[5, 5, 9, 0]), r'8 of its 8 boxes have a side under 1 px'),
    'outside': (every(bbox=[64, 5, 9, 9]), r"8 of its 8 boxes have no part inside .* or the image's width and height"),
    'relative': (relative, r'8 of its 8 boxes lie between 0 and 1, relative to the size of the image: write px'),
    'corners': (corners, r'8 of its 8 .*; read as corners, all of them lie inside: are these x1, y1, x2, y2\?'),
    'size 0': (
        lambda made: [image.update(width=0, height=0) for image in made['images']],
        r"image id 1 has width, height \(0, 0\) \(4 such images\); write the image's size in whole px",
    ),
    'size 64.5': (lambda made: made['images'][2].update(width=64.5), r'image id 3 has width, height \(64.5, 48\)'),
    'image ids': (ids_as_text('image'), r"image_id '1', .*it is text, the ids of the images are numbers: write 1 inst"),
    'category ids': (ids_as_text('category'), r'the ids of the categories are numbers: write 1 instead of "1"'),
    'image ids, text in images': (
        lambda made: [image.update(id=str(image['id'])) for image in made['images']],
        r'image_id 1, .*it is a number, the ids of the images are text: write "1" instead of 1',
    ),
    'names 0 and 1': (named(0, 1), r'category id 1 has name 0 \(2 such categories\); not text.*quotation marks'),
    'name true': (named('bolt', True), 'category id 2 has name true; not text'),
    'name null': (named('bolt', None), 'category id 2 has name null; not text'),
    'name list': (named(['bolt'], 'nut'), r'category id 1 has name \["bolt"\]; not text'),
}


@pytest.mark.parametrize('kind', FAULTS)
def test_a_mistake_of_every_record_is_named_as_what_it_is(kind: str, tmp_path: Path) -> None:
    change, message = FAULTS[kind]
    path = written(tmp_path, change)
    with pytest.raises(InputError, match=message) as error:
        check_coco(path, None, CLASSES)
    assert str(path) in str(error.value) and 'remove the annotation' not in str(error.value)


def test_a_mistake_of_fewer_boxes_is_a_warning(tmp_path: Path) -> None:
    """Half of them at most: three of eight over the border that would lie inside as corners, one without an area."""

    def change(made: dict[str, Any]) -> None:
        for annotation in made['annotations'][:3]:
            annotation['bbox'] = [24, 16, 44, 32]
        made['annotations'][7]['area'] = 0

    dropped, over = check_coco(written(tmp_path, change), None, CLASSES).warnings
    assert dropped.startswith('1 degenerate boxes (1 with an area of 0 or less), annotation ids 42')
    assert over.startswith('3 boxes reach over the border of their image; they are kept; read as corners, all of them')


def test_large_objects_over_the_border_are_no_corners(tmp_path: Path) -> None:
    """Boxes of sloppy annotators: read as corners some do not lie inside, and nothing is made of it."""

    def change(made: dict[str, Any]) -> None:
        for annotation in made['annotations']:
            annotation['bbox'] = [30, 20, 40, 16] if annotation['category_id'] == 1 else [5, 5, 64, 40]

    (warning,) = check_coco(written(tmp_path, change), None, CLASSES).warnings
    assert warning == '8 boxes reach over the border of their image; they are kept'

    def change_one(made: dict[str, Any]) -> None:
        made['annotations'][0]['bbox'] = [30, 20, 40, 16]

    (warning,) = check_coco(written(tmp_path, change_one), None, CLASSES).warnings
    assert warning == '1 box reaches over the border of its image; it is kept'


IDS = [True, None, 1.5, float('nan'), float('inf'), 2**53, 10**400, [1], {'id': 1}]


@pytest.mark.parametrize('value', IDS, ids=[repr(value)[:9] for value in IDS])
@pytest.mark.parametrize(
    ('records', 'key'),
    [(name, 'id') for name in ('images', 'annotations', 'categories')]
    + [('annotations', 'image_id'), ('annotations', 'category_id')],
)
def test_ids_are_whole_numbers_or_text(tmp_path: Path, records: str, key: str, value: Any) -> None:
    path = written(tmp_path, lambda made: made[records][1].update({key: value}))
    with pytest.raises(InputError, match=r'write (a whole number|the id of one)') as error:
        check_coco(path, None, CLASSES)
    assert len(str(error.value)) < 300 + len(str(path))


@pytest.mark.parametrize('records', ['images', 'categories'])
def test_ids_of_both_types_are_refused_where_the_evaluation_sorts_them(tmp_path: Path, records: str) -> None:
    path = written(tmp_path, lambda made: made[records][1].update(id='two'))
    with pytest.raises(InputError, match=r"1 of \d .* ids are text, the others numbers \(such as 'two' and 1\)"):
        check_coco(path, None, CLASSES)


@pytest.mark.parametrize(
    'value', [10**400, 1e300, float('inf'), '9', None, True, [9]], ids=lambda value: str(value)[:9]
)
@pytest.mark.parametrize('key', ['bbox', 'area'])
def test_numbers_that_are_none_of_px(tmp_path: Path, key: str, value: Any) -> None:
    wrong = [1, 2, value, 4] if key == 'bbox' else value
    path = written(tmp_path, lambda made: made['annotations'][2].update({key: wrong}))
    with pytest.raises(
        InputError, match=r'annotation id 21 (has (bbox|area) .*write [14] number|is infinite or larger)'
    ):
        check_coco(path, None, CLASSES)


@pytest.mark.parametrize('value', [None, 7, '', ['1.png'], 'a\0b.png'])
def test_a_file_name_is_text(tmp_path: Path, value: Any) -> None:
    path = written(tmp_path, lambda made: made['images'][1].update(file_name=value))
    with pytest.raises(InputError, match=r'image id 2 has file_name .*write the path of its file'):
        check_coco(path, None, CLASSES)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[' * 100_000, 'is no JSON that can be read|ends in mid-air'),
        ('{"images": ' + '9' * 5000 + '}', 'is no JSON that can be read'),
    ],
    ids=['depth', 'digits'],
)
def test_json_that_python_does_not_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / 'ann.json').write_text(text, encoding='utf-8')
    with pytest.raises(InputError, match=message):
        check_coco(tmp_path / 'ann.json', None, CLASSES)


# --- the data set's own class -----------------------------------------------------------------------------------------


@DATASETS.register_module()
class PlainWorkshop(CocoDataset):
    """As many have one: a class list of their own, nothing else."""

    METAINFO = dict(classes=CLASSES)


@DATASETS.register_module()
class FewBoxesWorkshop(CocoDataset):
    """Reads the first box of each image only."""

    def parse_data_info(self, raw_data_info: dict) -> Any:
        info = super().parse_data_info(raw_data_info)
        return {**info, 'instances': info['instances'][:1]}


@DATASETS.register_module()
class SortedWorkshop(CocoDataset):
    """Numbers its labels by the ids of the categories, as Objects365V1Dataset does."""

    def load_data_list(self) -> list[dict]:
        api = self.COCOAPI

        def by_id(path: str) -> Any:
            coco = api(path)
            coco.dataset['categories'] = sorted(coco.dataset['categories'], key=lambda category: category['id'])
            return coco

        self.COCOAPI = by_id
        return super().load_data_list()


@DATASETS.register_module()
class OwnWayWorkshop(CocoDataset):
    """Reads something else."""

    def load_data_list(self) -> list[dict]:
        return [dict(img_path='1.png', img_id=1, width=9, height=9, instances=[])]


@DATASETS.register_module()
class StuckWorkshop(CocoDataset):
    """Has a fault of its own."""

    def parse_data_info(self, raw_data_info: dict) -> Any:
        return raw_data_info['raw_img_info']['camera']


def config_of(path: Path, kind: Any, **settings: Any) -> dict[str, Any]:
    for i in range(1, 5):
        (path.parent / f'{i}.png').touch()
    dataset = dict(type=kind, ann_file=str(path), data_prefix=dict(img=str(path.parent)), pipeline=[])
    return dict(train_dataloader=dict(dataset={**dataset, 'metainfo': dict(classes=CLASSES), **settings}))


def test_a_derived_class_is_checked_as_it_reads_itself(tmp_path: Path) -> None:
    path = written(tmp_path)
    (report,) = check_config(config_of(path, 'PlainWorkshop'))
    assert (report.images_used, report.class_counts, report.warnings) == (4, {'bolt': 4, 'nut': 4}, ())
    with pytest.raises(InputError, match=r'train_dataloader.dataset: the class list is not in the order of .*ann.json'):
        check_config(config_of(path, PlainWorkshop, metainfo=dict(classes=('nut', 'bolt'))))
    with pytest.raises(
        InputError, match=r"lacks 80 of the 80 .*\(the class list is CocoDataset's own list, as .*not set"
    ):
        check_config(config_of(path, 'CocoDataset', metainfo=dict()))
    assert len(check_config(config_of(path, 'PlainWorkshop', metainfo=dict()))) == 1, 'its own list is the right one'


def test_what_was_loaded_for_the_check_is_given_back(tmp_path: Path) -> None:
    ((config, checked),) = checked_sets(config_of(written(tmp_path), 'CocoDataset'))
    assert config.dataset.data_list == [] and not config.dataset._fully_initialized
    assert checked.image_ids == (1, 2, 3, 4) and config.dataset.COCOAPI is CocoDataset.COCOAPI


def test_labels_are_compared_as_the_class_numbers_them(tmp_path: Path) -> None:
    path = written(tmp_path, lambda made: made['categories'].reverse())
    assert len(check_config(config_of(path, 'SortedWorkshop'))) == 1
    with pytest.raises(InputError, match=r"not in the order of .*write classes=\('nut', 'bolt'\)"):
        check_config(config_of(path, 'PlainWorkshop'))


def test_other_targets_than_the_files_are_said_of_a_derived_class(tmp_path: Path) -> None:
    (report,) = check_config(config_of(written(tmp_path), 'FewBoxesWorkshop'))
    assert report.class_counts == {'bolt': 4, 'nut': 0}
    assert report.warnings[0].startswith('FewBoxesWorkshop makes 4 targets of')
    assert 'which holds 8 by the rules of CocoDataset; the first image that differs has id 1 (1, not 2)' in str(report)


def test_other_targets_than_the_files_are_refused_of_coco_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An mmdet of other rules than those that the check knows."""
    plain = CocoDataset.parse_data_info

    def fewer(self: CocoDataset, raw: dict) -> Any:
        info = plain(self, raw)
        return {**info, 'instances': info['instances'][:1]}

    monkeypatch.setattr(CocoDataset, 'parse_data_info', fewer)
    with pytest.raises(InputError, match=r'CocoDataset makes 4 targets of .*holds 8 .*id 1 \(1, not 2\); this mmdet'):
        check_coco(written(tmp_path), None, CLASSES)


def test_a_class_that_reads_in_its_own_way_or_not_at_all(tmp_path: Path) -> None:
    path = written(tmp_path)
    (unchecked,) = check_config(config_of(path, 'OwnWayWorkshop'))
    own = 'it reads its file in a way of its own'
    assert unchecked.warnings == (f'not checked: OwnWayWorkshop of train_dataloader.dataset: {own}',)
    with pytest.raises(InputError, match=r"dataset: StuckWorkshop cannot load .*ann.json: KeyError: 'camera'"):
        check_config(config_of(path, 'StuckWorkshop'))
    with pytest.raises(InputError, match=r"dataset: CocoDataset cannot be built: TypeError: .*'colour'"):
        check_config(config_of(path, 'CocoDataset', colour=1))
    with pytest.raises(InputError, match=r"dataset: no data set class 'Unheard' is registered.*custom_imports"):
        check_config(config_of(path, 'Unheard'))


def test_a_filter_that_leaves_images_but_no_target(tmp_path: Path) -> None:
    def change(made: dict[str, Any]) -> None:
        made['annotations'] = made['annotations'][:2]
        made['images'][0].update(width=30)

    cfg = config_of(written(tmp_path, change), 'CocoDataset', filter_cfg=dict(min_size=32))
    with pytest.raises(InputError, match=r"filter_cfg=\{'min_size': 32\} .* leave none of its images with a target"):
        check_config(cfg)


SETTINGS = [
    dict(type='nosuch.Workshop'),
    dict(type=None),
    dict(ann_file=None),
    dict(ann_file=''),
    dict(ann_file=['a.json']),
    dict(ann_file='.'),
    dict(data_prefix=None),
    dict(data_prefix=dict(img=5)),
    dict(metainfo=[1]),
    dict(metainfo=dict(classes=5)),
    dict(metainfo=dict(classes=None)),
    dict(metainfo=dict(classes='.')),
    dict(filter_cfg='all'),
    dict(filter_cfg=dict(min_size='32')),
    dict(indices='all'),
    dict(indices=0),
    dict(indices=[0, 99]),
    dict(backend_args='local'),
    dict(proposal_file='nowhere.pkl'),
]


@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_settings_that_mmdet_stops_at_are_refused_by_their_place(tmp_path: Path, settings: dict[str, Any]) -> None:
    cfg = config_of(written(tmp_path), 'CocoDataset')
    cfg['train_dataloader']['dataset'].update(settings)
    with pytest.raises(InputError, match=r'^train_dataloader\.dataset(\.metainfo\.classes)?: '):
        check_config(cfg)

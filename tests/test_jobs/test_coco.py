"""COCO's forms of a job's rows: the documented fields, the numbers of mmdet's evaluation, memory that does not grow."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.evaluation import CocoMetric
from pycocotools.coco import COCO

pytest.importorskip('pyarrow')

import pyarrow as pa

from iouquery_runtime import InputError
from iouquery_runtime.jobs.coco import ROWS, write_coco, write_results

SCHEMA = pa.schema(
    [
        *(('id', pa.int64()), ('path', pa.string()), ('width', pa.int32()), ('height', pa.int32())),
        *(('boxes', pa.list_(pa.list_(pa.float32()))), ('scores', pa.list_(pa.float32()))),
        *(('labels', pa.list_(pa.int32())), ('error', pa.string())),
    ]
)
NAMES = ('person', 'dog', 'Fahrrad "ü"')


def rows_of(number: int, first: int = 0, most: int = 5) -> list[dict[str, Any]]:
    """Random detections; every seventh image is unreadable."""
    random = np.random.default_rng(first)
    rows = []
    for i in range(first, first + number):
        error = f'img/{i}.jpg: broken' if i % 7 == 3 else None
        count = 0 if error else random.integers(most + 1)
        corners = np.sort(random.uniform(0, [[640], [480]], (count, 2, 2)).astype(np.float32))
        rows.append(
            dict(
                id=2**53 + 10 * i,
                path=f'/data/img/{i} ü.jpg',
                width=0 if error else 640,
                height=0 if error else 480,
                boxes=corners.transpose(0, 2, 1).reshape(-1, 4).tolist(),
                scores=random.uniform(size=count).astype(np.float32).tolist(),
                labels=random.integers(3, size=count).tolist(),
                error=error,
            )
        )
    return rows


def tables_of(rows: list[dict[str, Any]], size: int = 10) -> Iterator[Any]:
    for first in range(0, len(rows), size):
        yield pa.Table.from_pylist(rows[first : first + size], schema=SCHEMA)


def assert_documented(coco: dict[str, Any]) -> None:
    """https://cocodataset.org/#format-data, and what the importers of Label Studio and CVAT read of it.

    Ids of categories and annotations begin at 1: 0 is no class to CVAT, and no object to pycocotools.
    """
    assert {*coco} == {'info', 'licenses', 'images', 'annotations', 'categories'}
    assert isinstance(coco['info'], dict) and coco['licenses'] == []
    fields = {
        'images': dict(id=int, width=int, height=int, file_name=str),
        'categories': dict(id=int, name=str, supercategory=str),
        'annotations': dict(
            id=int, image_id=int, category_id=int, bbox=list, area=float, iscrowd=int, segmentation=list, score=float
        ),
    }
    for kind, types in fields.items():
        for record in coco[kind]:
            assert {key: type(value) for key, value in record.items()} == types
        ids = [record['id'] for record in coco[kind]]
        assert len({*ids}) == len(ids) and all(number > 0 for number in ids)
    images = {image['id']: image for image in coco['images']}
    for record in coco['images']:
        assert record['width'] > 0 and record['height'] > 0 and not record['file_name'].startswith('/')
    for record in coco['annotations']:
        x, y, width, height = record['bbox']
        image = images[record['image_id']]
        assert 0 <= x <= x + width <= image['width'] and 0 <= y <= y + height <= image['height']
        assert record['area'] == width * height and record['iscrowd'] == 0 and record['segmentation'] == []
        assert record['category_id'] in [category['id'] for category in coco['categories']]
        assert 0 <= record['score'] <= 1


def test_a_dataset_is_of_the_documented_form(tmp_path: Path) -> None:
    rows = rows_of(40)
    write_coco(tables_of(rows), tmp_path / 'new' / 'coco.json', names=NAMES, root='/data/img')
    coco = json.loads((tmp_path / 'new' / 'coco.json').read_text(encoding='utf-8'))
    assert_documented(coco)
    read = [row for row in rows if row['error'] is None]
    assert [(image['id'], image['file_name']) for image in coco['images']] == [
        (row['id'], row['path'][10:]) for row in read
    ]
    assert coco['info']['images_that_could_not_be_read'] == len(rows) - len(read) == 6
    assert {category['id']: category['name'] for category in coco['categories']} == dict(enumerate(NAMES, start=1))
    assert len(coco['annotations']) == sum(len(row['scores']) for row in rows) > 50
    assert [annotation['score'] for annotation in coco['annotations']] == [
        score for row in rows for score in row['scores']
    ]


def test_results_are_those_of_mmdets_evaluation(tmp_path: Path) -> None:
    """To the last bit: x2 - x1 in float32 would differ."""
    rows, ids = rows_of(40), [900, 3, 17]
    write_results(tables_of(rows), tmp_path / 'results.json', names=NAMES, category_ids=ids)
    metric = CocoMetric()
    metric.cat_ids = ids
    predictions = [
        dict(
            img_id=row['id'],
            bboxes=np.array(row['boxes'], np.float32).reshape(-1, 4),
            scores=np.array(row['scores'], np.float32),
            labels=np.array(row['labels'], int),
        )
        for row in rows
    ]
    metric.results2json(predictions, str(tmp_path / 'mmdet'))
    assert json.loads((tmp_path / 'results.json').read_text()) == json.loads((tmp_path / 'mmdet.bbox.json').read_text())


def test_results_load_onto_the_dataset(tmp_path: Path) -> None:
    rows = rows_of(40)
    for write, name in ((write_coco, 'coco'), (write_results, 'results')):
        write(tables_of(rows), tmp_path / f'{name}.json', names=NAMES, image_ids='numbered')
    coco = COCO(str(tmp_path / 'coco.json'))
    loaded = coco.loadRes(str(tmp_path / 'results.json'))
    assert sorted(coco.imgs) == [number for number, row in enumerate(rows, start=1) if row['error'] is None]
    for number, annotation in coco.anns.items():
        assert {key: loaded.anns[number][key] for key in ('image_id', 'category_id', 'bbox', 'score', 'area')} == {
            key: annotation[key] for key in ('image_id', 'category_id', 'bbox', 'score', 'area')
        }


def test_no_rows_and_no_detections_are_whole_files(tmp_path: Path) -> None:
    for name, rows in (('none', []), ('empty', rows_of(3, most=0))):
        write_coco(tables_of(rows), tmp_path / f'{name}.json', names=NAMES)
        coco = json.loads((tmp_path / f'{name}.json').read_text(encoding='utf-8'))
        assert (len(coco['images']), coco['annotations'], len(coco['categories'])) == (len(rows), [], 3)
        write_results(tables_of(rows), tmp_path / f'{name}.json', names=NAMES)
        assert json.loads((tmp_path / f'{name}.json').read_text()) == []


@pytest.mark.parametrize(
    ('path', 'root', 'expected'),
    [
        ('/data/img/a/b.jpg', '/data/img', 'a/b.jpg'),
        ('/data/img/a/b.jpg', '/data/img/', 'a/b.jpg'),
        ('/data/img2/b.jpg', '/data/img', '/data/img2/b.jpg'),
        ('/b.jpg', '', '/b.jpg'),
        ('s3://bucket/img/b.jpg', 's3://bucket/img', 'b.jpg'),
    ],
)
def test_file_names_lose_a_folder_and_no_more(path: str, root: str, expected: str, tmp_path: Path) -> None:
    rows = [{**rows_of(1)[0], 'path': path}]
    write_coco(tables_of(rows), tmp_path / 'coco.json', names=NAMES, root=root)
    assert json.loads((tmp_path / 'coco.json').read_text())['images'][0]['file_name'] == expected


@pytest.mark.parametrize('write', [write_coco, write_results])
@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            dict(labels=[3]),
            r'^image /data/img/0 ü.jpg has a detection of label 3; there are 3 classes; give an id for each class$',
        ),
        (dict(boxes=[[0.0, 0.0, float('nan'), 1.0]]), r'^a detection holds .*nan'),
        (None, r'^the part is damaged$'),
    ],
)
def test_after_an_error_nothing_is_left(write: Any, changes: Any, message: str, tmp_path: Path) -> None:
    row = {**rows_of(1)[0], **dict(boxes=[[0.0, 0.0, 1.0, 1.0]], scores=[0.5], labels=[0]), **(changes or {})}

    def tables() -> Iterator[Any]:
        yield from tables_of([*rows_of(20, first=1), row])
        raise InputError('the part is damaged')

    (tmp_path / 'out.json').write_text('before')
    with pytest.raises(InputError, match=message):
        write(tables(), tmp_path / 'out.json', names=NAMES)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [('out.json', 'before')]


def test_arguments_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'^there are 2 category_ids for 3 names; give one for each$'):
        write_coco(tables_of(rows_of(1)), tmp_path / 'out.json', names=NAMES, category_ids=[1, 2])
    with pytest.raises(ValueError, match=r"^image_ids must be 'own' or 'numbered', got 'mine'$"):
        write_results(tables_of(rows_of(1)), tmp_path / 'out.json', names=NAMES, image_ids='mine')
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match=r'/out.json cannot be written: File exists; name another file, or make room$'):
        write_coco(tables_of(rows_of(1)), tmp_path / 'file' / 'out.json', names=NAMES)


@pytest.mark.parametrize('write', [write_coco, write_results])
def test_memory_does_not_grow_with_the_rows(write: Any, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows_of(ROWS), schema=SCHEMA)

    def peak(tables: int) -> int:
        tracemalloc.start()
        write((table for _ in range(tables)), tmp_path / 'out.json', names=NAMES, image_ids='numbered')
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(3), peak(16)
    assert many < 1.2 * few
    assert (tmp_path / 'out.json').stat().st_size > 3 * many

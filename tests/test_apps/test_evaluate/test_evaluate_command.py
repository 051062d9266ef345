"""tools/eval_coco.py: the numbers of tools/test.py, from a job's folder and from a results file."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from iouquery_runtime import Detector
from mmdet_iouquery.apps.evaluate.command import NUMBERS, evaluate
from mmdet_iouquery.engine.launch import run_tool
from mmdet_iouquery.engine.launch import test as run_test
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.main import main

pytest.importorskip('onnxruntime')
exported_files = pytest.importorskip('exported_files')
NAMES, SIDE, write_model = exported_files.NAMES, exported_files.SIDE, exported_files.write_model

ROOT = Path(__file__).resolve().parents[3]
IMAGES = 6
IDS = {'dog': 900, 'person': 3, 'Fahrrad ü': 17}
"""Of the categories, in the file's order, which is not the model's."""
CONFIG = """
classes = {classes!r}
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root={root!r},
        ann_file='labels.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile', _scope_='mmdet_iouquery'),
            dict(type='Resize', scale=({side}, {side}), keep_ratio=False, backend='pillow'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ],
    ),
)
test_evaluator = dict(
    type='FastCocoMetric', ann_file={root!r} + '/labels.json', metric='bbox', classwise=True, metric_items={numbers!r}
)
test_cfg = dict(type='TestLoop')
env_cfg = dict(dist_cfg=dict(backend='gloo'))
default_scope = 'mmdet'
model = dict(type='SingleStageDetector')  # an exported file takes its place
"""


class Tested(NamedTuple):
    """A set, a model and what ``tools/test.py`` says of them."""

    folder: Path
    truth: Path
    results: Path
    metrics: dict[str, float]


@pytest.fixture(scope='module')
def tested(tmp_path_factory: pytest.TempPathFactory) -> Tested:
    """Objects are what the model detects, shifted, some of another class, and one in three is left out."""
    root = tmp_path_factory.mktemp('set')
    (root / 'images').mkdir()
    order = [*IDS]
    # labels number the categories in the file's order to mmdet, so the model's names are in that order
    file = write_model(root / 'model.onnx', format_changes={'names': dict(enumerate(order))})
    random, detector, images, objects = np.random.default_rng(0), Detector(file), [], []
    for number in range(IMAGES):
        path = root / 'images' / f'{number}.png'
        cells = random.integers(0, 256, (4, 6, 3))
        Image.fromarray(np.kron(cells, np.ones((60, 60, 1))).astype(np.uint8)).save(path)
        images.append(dict(id=40 - number, file_name=path.name, width=360, height=240))
        for entry in detector(path).to_coco(40 - number, [*IDS.values()]):
            if random.random() < 0.3:
                continue
            shift = random.uniform(-0.1, 0.1, 4) * (entry['bbox'][2:] * 2)
            box = [float(x) for x in np.maximum(np.add(entry['bbox'], shift), 0.5)]
            category = entry['category_id'] if random.random() < 0.9 else 17
            about = dict(id=len(objects) + 1, area=box[2] * box[3], iscrowd=int(random.random() < 0.1))
            objects.append(dict(image_id=40 - number, category_id=category, bbox=box, **about))
    content = dict(images=images, annotations=objects, categories=[dict(id=i, name=name) for name, i in IDS.items()])
    (root / 'labels.json').write_text(json.dumps(content), encoding='utf-8')
    config = root / 'config.py'
    config.write_text(
        CONFIG.format(classes=tuple(order), root=str(root), side=SIDE, numbers=[*NUMBERS]), encoding='utf-8'
    )
    options = ['--work-dir', str(root / 'work'), '--out', str(root / 'tested'), '--no-check']
    metrics = run_test([str(config), str(file), *options])
    return Tested(root, root / 'labels.json', root / 'tested.bbox.json', metrics)


def write_job(out: Path, rows: list[dict[str, Any]], names: Any = tuple(IDS), finished: bool = True) -> Path:
    """A job's folder, of parts of four rows."""
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet

    schema = pa.schema(
        [
            *(('id', pa.int64()), ('path', pa.string()), ('width', pa.int32()), ('height', pa.int32())),
            *(('boxes', pa.list_(pa.list_(pa.float32()))), ('scores', pa.list_(pa.float32()))),
            *(('labels', pa.list_(pa.int32())), ('error', pa.string())),
        ],
        metadata={'names': json.dumps([*names])},
    )
    (out / 'parts').mkdir(parents=True)
    for number, first in enumerate(range(0, len(rows), 4)):
        table = pa.Table.from_pylist(rows[first : first + 4], schema=schema)
        parquet.write_table(table, out / 'parts' / f'{number:06}.parquet')
    (out / 'job.json').write_text(json.dumps(dict(format=1, state='finished' if finished else 'running')))
    return out


def rows_of(tested: Tested) -> list[dict[str, Any]]:
    """What the model detects in the set's images, read from their files."""
    detector = Detector(tested.folder / 'model.onnx')
    rows = []
    for image in json.loads(tested.truth.read_text(encoding='utf-8'))['images']:
        path = str(tested.folder / 'images' / image['file_name'])
        result = detector(path)
        detections = dict(boxes=result.boxes.tolist(), scores=result.scores.tolist(), labels=result.labels.tolist())
        rows.append(dict(id=image['id'], path=path, width=result.width, height=result.height, **detections, error=None))
    return rows


def test_numbers_of_a_results_file_are_those_of_the_test_tool(
    tested: Tested, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = evaluate([str(tested.results), str(tested.truth)])
    assert metrics == tested.metrics
    assert 0.2 < metrics['coco/bbox_mAP'] < 0.8  # and not 0 or 1, which many things give
    assert len(metrics) == 12 + 3
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert ['mAP', f'{metrics["coco/bbox_mAP"]:.3f}'] in lines
    assert ['AR_l@1000', f'{metrics["coco/bbox_AR_l@1000"]:.3f}'] in lines
    assert ['Fahrrad', 'ü', f'{metrics["coco/Fahrrad ü_precision"]:.3f}'] in lines
    assert f'detections in {IMAGES} of {IMAGES} images' in printed


def test_numbers_of_a_job_are_those_of_the_test_tool(tested: Tested, tmp_path: Path) -> None:
    """The job's own detections, from the files; its labels are in another order than the file's categories."""
    rows, names = rows_of(tested), ('person', 'dog', 'Fahrrad ü')
    for row in rows:
        row['labels'] = [names.index([*IDS][label]) for label in row['labels']]
    out = write_job(tmp_path / 'out', rows, names)
    assert evaluate([str(out), str(tested.truth)]) == tested.metrics


def test_images_that_could_not_be_read_count_as_images_without_detections(
    tested: Tested, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(tested)
    unread = rows[1]['id']
    rows[1].update(boxes=[], scores=[], labels=[], width=0, height=0, error='it is broken')
    metrics = evaluate([str(write_job(tmp_path / 'out', rows)), str(tested.truth)])
    assert f'in {IMAGES} images, of which 1 could not be read and count as' in capsys.readouterr().out
    entries = [entry for entry in json.loads(tested.results.read_text()) if entry['image_id'] != unread]
    (tmp_path / 'without.json').write_text(json.dumps(entries))
    assert metrics == evaluate([str(tmp_path / 'without.json'), str(tested.truth)])
    assert metrics['coco/bbox_AR@100'] < tested.metrics['coco/bbox_AR@100']


def test_what_does_not_fit_is_told(tested: Tested, tmp_path: Path) -> None:
    rows, truth = rows_of(tested), str(tested.truth)
    for name, changed, options, message in (
        ('unfinished', rows, dict(finished=False), r'is not finished; call `iouquery predict` again with --resume$'),
        ('ids', [*rows, {**rows[0], 'id': 7}], {}, r'out has 1 image ids that .*labels.json lacks, such as 7; name'),
        ('fewer', rows[1:], {}, r'has no rows for 1 of the 6 images of .*, such as id 40; run the job on this file'),
        (
            'names',
            rows,
            dict(names=('dog', 'Person', 'Fahrrad ü')),
            r"class 'Person', which .* does not name \(dog, per",
        ),
        (
            'none',
            [{**row, 'boxes': [], 'scores': [], 'labels': []} for row in rows],
            {},
            r'out holds no detections, so',
        ),
        (
            'unread',
            [{**row, 'boxes': [], 'scores': [], 'labels': [], 'error': f'no {row["id"]}'} for row in rows],
            {},
            rf'none of the 6 images of .*out could be read, so there is no AP; the first: no {rows[0]["id"]}; detect',
        ),
        ('empty', [], {}, r'out holds no parts; name the folder'),
    ):
        out = write_job(tmp_path / name / 'out', changed, **options)
        with pytest.raises(InputError, match=message):
            evaluate([str(out), truth])


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'annotations': []}, r'found.json holds no list of COCO results; name first the detections'),
        ([], r'found.json holds no detections, so there is no AP'),
        ([dict(image_id=40, category_id=3, bbox=[1, 2, 3], score=0.5)], r'entry 0 of the list is no COCO result'),
        ([dict(image_id=40, category_id=3, bbox=[1, 2, 3, 4])], r'entry 0 of the list is no COCO result'),
        ([dict(image_id=99, category_id=3, bbox=[1, 2, 3, 4], score=0.5)], r'1 image ids that .*lacks, such as 99;'),
        ([dict(image_id=40, category_id=1, bbox=[1, 2, 3, 4], score=0.5)], r'1 category ids that .*lacks, such as 1;'),
    ],
)
def test_results_that_do_not_fit_are_told(content: Any, message: str, tested: Tested, tmp_path: Path) -> None:
    (tmp_path / 'found.json').write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        evaluate([str(tmp_path / 'found.json'), str(tested.truth)])


def test_the_tool_prints_the_numbers_alone(tested: Tested) -> None:
    command = [sys.executable, str(ROOT / 'tools' / 'eval_coco.py'), str(tested.results), str(tested.truth)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].endswith(f'detections in {IMAGES} of {IMAGES} images')
    assert lines[2] == f'mAP        {tested.metrics["coco/bbox_mAP"]:6.3f}'
    assert len(lines) == 2 + 12 + 2 + 3


def test_numbers_for_other_programs(tested: Tested, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tested.results), str(tested.truth)]
    assert main(['evaluate', *files, '--json']) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == evaluate(files) and f'{IMAGES} of {IMAGES} images' in printed.err


def test_the_tool_leaves_with_status_2_for_bad_input(
    tested: Tested, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (
            [tmp_path, tested.truth],
            'holds no job.json; name a folder that `iouquery predict` wrote to, or a results file',
        ),
        ([tmp_path / 'none', tested.truth], f'there is no folder or file {tmp_path / "none"}; correct the path'),
        ([tested.results, tmp_path / 'none.json'], f'none.json; {tmp_path} has no JSON file'),
    ):
        assert run_tool(partial(evaluate, [*map(str, arguments)])) == 2
        printed = capsys.readouterr()
        assert printed.out == '' and printed.err.startswith('error: ') and printed.err.endswith(f'{message}\n')

"""Exported files in the place of a detector: ``tools/test.py CONFIG model.onnx``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from PIL import Image
from tolerances import about, within

from iouquery_runtime import Detector
from iouquery_runtime import InputError as RuntimeInputError
from mmdet_iouquery.choices import is_exported
from mmdet_iouquery.deploy.exported import ExportedDetector
from mmdet_iouquery.engine.launch import test as run_test
from mmdet_iouquery.errors import InputError

pytest.importorskip('onnxruntime')
exported_files = pytest.importorskip('exported_files')
NAMES, SIDE, write_model = exported_files.NAMES, exported_files.SIDE, exported_files.write_model

CONFIG = """
classes = {classes!r}
image = dict(type='LoadImageFromFile', _scope_='mmdet_iouquery')
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
            image,
            dict(type='Resize', scale=({side}, {side}), keep_ratio=False, backend='pillow'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        ],
    ),
)
test_evaluator = dict(type='CocoMetric', ann_file={root!r} + '/labels.json', metric='bbox')
test_cfg = dict(type='TestLoop')
env_cfg = dict(dist_cfg=dict(backend='gloo'))
default_scope = 'mmdet'
model = dict(type='SingleStageDetector')  # an exported file takes its place
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of three images, of which an object is whatever the exported file beside it detects there."""
    root = tmp_path_factory.mktemp('set')
    path = write_model(root / 'model.onnx')
    (root / 'images').mkdir()
    random, detector, images, boxes = np.random.default_rng(1), Detector(path), [], []
    for number in range(3):
        file = root / 'images' / f'{number}.png'
        cells = random.integers(0, 256, (4, 6, 3)) if not number else np.full((4, 6, 3), 128)
        Image.fromarray(np.kron(cells, np.ones((20, 20, 1))).astype(np.uint8)).save(file)
        images.append(dict(id=number, file_name=file.name, width=120, height=80))
        if not number:
            for entry in detector(file).to_coco(number):
                area = entry['bbox'][2] * entry['bbox'][3]
                boxes.append({**entry, 'id': len(boxes) + 1, 'area': area, 'iscrowd': 0})
    categories = [dict(id=number, name=name) for number, name in enumerate(NAMES, 1)]
    content = dict(images=images[:1], annotations=boxes, categories=categories)
    (root / 'labels.json').write_text(json.dumps(content), encoding='utf-8')
    (root / 'config.py').write_text(CONFIG.format(classes=NAMES, root=str(root), side=SIDE), encoding='utf-8')
    return root / 'config.py'


def run(config: Path, file: Path, work_dir: Path, *more: str) -> dict[str, float]:
    return run_test([str(config), str(file), '--work-dir', str(work_dir), *more])


def test_the_test_tool_takes_an_exported_file(config: Path, tmp_path: Path) -> None:
    metrics = run(config, config.parent / 'model.onnx', tmp_path, '--out', str(tmp_path / 'results'))
    assert metrics['coco/bbox_mAP'] == pytest.approx(1)
    written = json.loads((tmp_path / 'results.bbox.json').read_text())
    truth = json.loads((config.parent / 'labels.json').read_text())['annotations']
    assert len(written) == len(truth)
    for ours, theirs in zip(written, truth):
        assert ours['category_id'] == theirs['category_id']
        assert ours['bbox'] == about(theirs['bbox'], 'px')


def test_what_an_exported_file_cannot_do_is_refused(config: Path, tmp_path: Path) -> None:
    file = config.parent / 'model.onnx'
    for more, message in (
        (['--prepare'], 'is an exported file, whose graph is as it is: leave out --prepare'),
        (['--dtype', 'float16'], 'is an exported file, whose graph is as it is'),
        (['--launcher', 'pytorch'], 'is tested in one process: leave --launcher out'),
    ):
        with pytest.raises(InputError, match=message):
            run(config, file, tmp_path, *more)
    with pytest.raises(InputError, match='bfloat16 is for OpenVINO files'):
        run(config, file, tmp_path, '--dtype', 'bfloat16')
    with pytest.raises(RuntimeInputError, match=r'there is no file .*none\.onnx'):
        run(config, tmp_path / 'none.onnx', tmp_path / 'runs')
    assert not (tmp_path / 'runs').exists()  # it is said before work starts
    renamed = tmp_path / 'config.py'
    renamed.write_text(config.read_text().replace("'person', 'dog'", "'dog', 'person'"), encoding='utf-8')
    named = write_model(tmp_path / 'named.onnx', format_changes={'config': 'other_coco.py'})
    text = r'\.onnx has the classes person, dog, .* and the data set dog, person.* the file was exported with'
    for path, its in ((file, ', or'), (named, r' \(other_coco\.py\), or')):
        with pytest.raises(InputError, match=text + its):
            run(renamed, path, tmp_path, '--no-check')
    renamed.write_text(config.read_text().replace('scale=(64, 64)', 'scale=(96, 64)'), encoding='utf-8')
    with pytest.raises(InputError, match=r'gives images of 64x96 .* and .*onnx takes 64x64.*--dynamic-size'):
        run(renamed, file, tmp_path)


def test_what_the_config_says_otherwise_than_the_file_is_noted(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, with both values and the one that holds; nothing where they agree."""
    table = {'scores': [0.0, 1.0], 'precision': [0.0, 0.5]}
    changes = {'config': 'given.py', 'test_cfg': {'score_thr': 0.25, 'overlap_thr': None, 'calibration': table}}
    write_model(tmp_path / 'other.onnx', size=None, format_changes=changes)
    run(config, config.parent / 'model.onnx', tmp_path)
    assert 'differ' not in capsys.readouterr().out
    changed = tmp_path / 'config.py'
    text = config.read_text().replace('scale=(64, 64)', 'scale=(96, 64)').replace(", backend='pillow'", '')
    test_cfg = 'test_cfg=dict(score_thr=0.5, max_per_img=20)'
    changed.write_text(text.replace("'SingleStageDetector'", f"'SingleStageDetector', {test_cfg}"), encoding='utf-8')
    run(changed, tmp_path / 'other.onnx', tmp_path)
    (note,) = [line for line in capsys.readouterr().out.splitlines() if 'differ' in line]
    assert note == (
        f'note: {changed} and {tmp_path}/other.onnx differ: images are resized to 64x96 bilinear, as the config says, '
        'and not to 64x64 bilinear (antialiased), as the file does; score_thr is 0.25, as the file says, and not 0.5, '
        'as the config does; calibration is a table of 2 points, as the file says, and not None, as the config does; '
        'max_per_img is 10, as the file says, and not 20, as the config does; the model is that of given.py, as the '
        'file says, and not that of config.py'
    )


def test_a_model_of_another_config_is_told_by_its_values(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by the name of its file, which is config.py in every work folder; what only trains counts for nothing."""
    model = {'type': 'SingleStageDetector', 'backbone.depth': 18, 'neck.out_channels': 64, 'a': 1, 'b': 2}
    file = write_model(tmp_path / 'other.onnx', format_changes={'config': config.name, 'model': model})
    changed, text = tmp_path / 'changed.py', config.read_text()
    parts = "backbone=dict(depth=18, init_cfg=dict(checkpoint='x.pth')), train_cfg=dict(assigner=dict(type='A'))"
    for more, sentences in (
        ('neck=dict(out_channels=64), a=1, b=2', []),
        ('neck=dict(out_channels=64), a=1, b=2, test_cfg=dict(num_queries=5)', ['model.test_cfg.num_queries is None']),
        ('neck=dict(out_channels=32), a=1, b=2', ['model.neck.out_channels is 64, as the file says, and not 32, as']),
        (
            'c=5',
            ['model.neck.out_channels is 64, as the file says, and not None', 'model.b is 2', '; 1 more of the'],
        ),
    ):
        changed.write_text(text.replace("'SingleStageDetector'", f"'SingleStageDetector', {parts}, {more}"))
        run(changed, file, tmp_path)
        notes = [line for line in capsys.readouterr().out.splitlines() if 'differ' in line]
        assert len(notes) == bool(sentences) and all(words in note for note in notes for words in sentences), notes


@pytest.mark.parametrize(('batch', 'rgb'), [('batch', False), (2, False), ('batch', True)])
def test_images_go_to_the_file_in_rgb_and_in_batches_that_it_takes(tmp_path: Path, batch: int | str, rgb: bool) -> None:
    path = write_model(tmp_path / 'model.onnx', batch=batch)
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    given = images if rgb else images[..., ::-1]
    inputs = [torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in given]
    samples = [DetDataSample(metainfo=dict(ori_shape=(SIDE, SIDE))) for _ in images]
    model = ExportedDetector(path=str(path), rgb=rgb)
    predicted = model.test_step(dict(inputs=inputs, data_samples=samples))
    for sample, expected in zip(predicted, Detector(path)([*images])):
        assert np.allclose(sample.pred_instances.bboxes.numpy(), expected.boxes, **within('px'))
        assert np.allclose(sample.pred_instances.scores.numpy(), expected.scores, **within('unit'))
        assert np.array_equal(sample.pred_instances.labels.numpy(), expected.labels)


def test_files_are_told_by_their_names() -> None:
    assert is_exported('a/model.ONNX') and is_exported('model.xml')
    assert not is_exported('epoch_1.pth') and not is_exported('model.onnx.pth')

"""From somebody's own images to detections: five commands, and a few lines of Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from form_sets import digits_as_voc, digits_as_yolo

from iouquery_runtime import Result
from mmdet_iouquery import Detector
from mmdet_iouquery.apps.quickstart.digits import build_digits

pytest.importorskip('sklearn')
ROOT = Path(__file__).resolve().parents[1]
TRAIN, VAL = 12, 6
SMALL = ('model.bbox_head.query_selector.num_queries=30', 'model.bbox_head.denoising.num_denoising=6')
FEW = ('--epochs', '1', '--size', '64', '--batch', '4', '--weights', 'none')


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'digits'
    return Path(build_digits(folder, num_train=TRAIN, num_val=VAL, image_size=96))


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel installs."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    for name in ('mmdet_iouquery', 'iouquery_runtime', 'configs', 'tools'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md', 'model-index.yml', 'iouquery.py'):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(folder)]
    subprocess.run([*build, str(source)], check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / 'site')
    return folder / 'site'


@pytest.fixture
def shell(site: Path, tmp_path: Path) -> Any:
    """Types ``iouquery ...`` in an empty folder that the wheel alone is known in."""
    environment = {**os.environ, 'PYTHONPATH': str(site)}

    def typed(*words: object) -> str:
        line = [sys.executable, '-m', 'iouquery', *map(str, words)]
        done = subprocess.run(
            line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, f'{words}: {done.stdout[-2000:]} {done.stderr[-2000:]}'
        return done.stdout

    return typed


def test_five_commands_in_an_empty_folder(shell: Any, digits: Path, tmp_path: Path) -> None:
    """A YOLO set, from the wheel alone; the first command is called again, and goes no further."""
    pytest.importorskip('onnxruntime')
    digits_as_yolo(digits, tmp_path / 'numbers')
    train = ['train', 'rtdetr_r18vd', '--data', 'numbers', *FEW, '--cfg-options', *SMALL]
    said = shell(*train)
    run = tmp_path / 'work_dirs' / 'rtdetr_r18vd_numbers'
    assert f'{TRAIN} images for training, {VAL} for validation: 0, 1, 2' in said and f'iouquery train {run}' in said
    assert (run / 'epoch_1.pth').is_file()
    again = shell(*train)
    assert 'nothing to do' in again and 'this training is finished' in again
    (line,) = (line for line in said.splitlines() if line.startswith('again '))
    assert line.split()[:2] == ['again', 'iouquery']
    assert 'this training is finished' in shell(*line.partition('   (')[0].split()[2:])
    numbers = json.loads(shell('test', run, '--json'))
    assert 0 <= numbers['coco/bbox_mAP'] <= 1
    shell('export', run, '-o', 'model.onnx')
    lines = shell('detect', 'model.onnx', 'numbers/images/val', '--out', 'found', '--score-thr', '0').splitlines()
    assert len(lines) == VAL == len(list((tmp_path / 'found').iterdir())) and '96x96: ' in lines[0]
    same = shell('detect', run, 'numbers/images/val', '--json', 'found.json', '--score-thr', '0').splitlines()
    assert len(same) == VAL
    assert all(len(one['detections']) == 300 for one in json.loads((tmp_path / 'found.json').read_text())['images'])
    page = shell('analyze', run, '--out', 'queries', '--images', '2', '--pictures', '1')
    assert 'index.html' in page and (tmp_path / 'queries' / 'index.html').is_file()


def test_the_same_in_python(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pascal VOC set."""
    monkeypatch.chdir(tmp_path)
    digits_as_voc(digits, tmp_path / 'numbers')
    options = dict(pair.split('=') for pair in SMALL)
    detector = Detector('rtdetr_r18vd', 'none', device='cpu', cfg_options={key: int(v) for key, v in options.items()})
    checkpoint = detector.train('numbers', epochs=1, size=64, batch=4)
    assert checkpoint == tmp_path / 'work_dirs' / 'rtdetr_r18vd_numbers' / 'epoch_1.pth'
    metrics = detector.test()
    result = detector(next((tmp_path / 'numbers' / 'JPEGImages').iterdir()))
    assert isinstance(result, Result) and len(result) == 300 and 0 <= metrics['coco/bbox_mAP'] <= 1
    assert Detector(checkpoint.parent, device='cpu').test() == pytest.approx(metrics)

"""From somebody's own images to detections: the README's commands, from the wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from form_sets import digits_as_yolo
from mmdet.registry import MODELS
from mmengine.config import Config
from pages import ROOT, blocks, lines, quick

from mmdet_iouquery import config_path
from mmdet_iouquery.apps.quickstart.digits import build_digits

pytest.importorskip('sklearn')
TRAIN, VAL = 12, 6


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


DOOR = """
import json, os, sys
import mmdet_iouquery, mmdet.apis
import iouquery

for line in sys.stdin:
    words, *files = json.loads(line)
    child = os.fork()
    if not child:
        for stream, file in zip((0, 1, 2), (os.devnull, *files)):
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), stream)
        sys.argv = ['iouquery', *words]
        sys.exit(iouquery.main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""A process for each command, forked from one that has imported what takes seconds; answers with its exit status."""


@pytest.fixture
def shell(site: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Types ``iouquery ...`` in an empty folder that the wheel alone is known in."""
    environment = {**os.environ, 'PYTHONPATH': str(site)}
    files = [tmp_path / 'stdout', tmp_path / 'stderr']
    pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, '-c', DOOR], cwd=tmp_path, env=environment, **pipes) as door:

        def typed(*words: object) -> str:
            for file in files:
                file.write_text('')
            print(json.dumps([words, *files], default=str), file=door.stdin, flush=True)
            status = door.stdout.readline()
            output, errors = (file.read_text() for file in files)
            assert status == '0\n', f'{words}: {output[-2000:]} {errors[-2000:]}'
            return output

        yield typed


def test_the_readmes_commands_in_an_empty_folder(shell: Callable[..., str], digits: Path, tmp_path: Path) -> None:
    """On a YOLO set, from the wheel alone; the training is called again, and goes no further."""
    for module in ('onnxruntime', 'ray'):
        pytest.importorskip(module)
    parquet = pytest.importorskip('pyarrow.parquet')
    digits_as_yolo(digits, tmp_path / 'my-set')
    shutil.copytree(digits / 'val', tmp_path / 'photos')
    shutil.copy(next((digits / 'val').iterdir()), tmp_path / 'street.jpg')
    torch.save(
        {'state_dict': MODELS.build(Config.fromfile(config_path('rtdetr_r18vd')).model).state_dict()},
        tmp_path / 'rtdetr_r18vd.pth',
    )
    outputs = {}
    for block in blocks(ROOT / 'README.md'):
        for words in lines(block) if block.language == 'bash' else ():
            if words[0] == 'iouquery' and words[1] != 'doctor':
                outputs[words[1]] = shell(*quick(words[1:]), *['--json'] * (words[1] == 'test'))
    run = tmp_path / 'work_dirs' / 'rtdetr_r18vd_my-set'
    assert list(outputs) == ['configs', 'train', 'test', 'export', 'detect', 'predict', 'analyze']
    assert f'{TRAIN} images for training, {VAL} for validation: 0, 1, 2' in outputs['train']
    assert 0 <= json.loads(outputs['test'])['coco/bbox_mAP'] <= 1
    assert (run / 'epoch_1.pth').is_file() and (tmp_path / 'queries' / 'index.html').is_file()
    assert len(outputs['detect'].splitlines()) == VAL + 1 == len(list((tmp_path / 'found').iterdir()))
    assert parquet.read_table(tmp_path / 'boxes' / 'parts').num_rows == VAL
    (line,) = (line for line in outputs['train'].splitlines() if line.startswith('again '))
    assert line.split()[:2] == ['again', 'iouquery']
    assert 'this training is finished' in shell(*line.partition('   (')[0].split()[2:])

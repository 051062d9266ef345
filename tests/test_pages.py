"""What the pages tell to type is what there is, and does what they say."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from form_sets import digits_as_voc, digits_as_yolo
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from pages import PAGES, ROOT, blocks, command, lines, quick
from PIL import Image

from iouquery_runtime import Result
from iouquery_runtime.command import main as runtime
from mmdet_iouquery import Detector, config_path
from mmdet_iouquery.apps.commands import COMMANDS
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.checkpoints.convert_file import convert_file
from mmdet_iouquery.main import main

pytest.importorskip('sklearn')
RUN = (
    *('fine-tune', 'own-images', 'start', 'prediction', 'hub', 'deployment'),
    *('logging', 'commands', 'install', 'parts', 'distillation'),
)
"""The pages whose blocks are run one after another in one folder; Python's page is run in one of its own."""


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_line_is_a_command_that_there_is(page: Path) -> None:
    """Its arguments are read by the command's own parser, and targets of make are in the Makefile."""
    targets = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE)
    for block in blocks(page):
        for words in lines(block) if block.language == 'bash' else ():
            if words[0] == 'make':
                assert words[1] in targets
            elif (typed := command(words)) and typed[0] not in ('-h', '--help'):
                entry = COMMANDS[typed[0]]
                if entry.parser and '--help' not in typed:
                    entry.parser_for('iouquery').parse_args(typed[1:])


@pytest.mark.parametrize('page', [*RUN, 'python'])
def test_a_reason_is_given_for_what_is_not_run(page: str) -> None:
    for block in blocks(f'{page}.md'):
        assert block.language in ('bash', 'python', 'json', 'text')
        assert block.not_run is None or len(block.not_run) > 10


@pytest.fixture(scope='module')
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who reads: a set, weights of 80 classes, images."""
    folder = tmp_path_factory.mktemp('reader')
    digits = Path(build_digits(folder / 'data' / 'digits', num_train=8, num_val=4, image_size=96))
    digits_as_yolo(digits, folder / 'my-set')
    shutil.copytree(digits / 'val', folder / 'photos')
    for name in ('street.jpg', 'image.jpg'):
        Image.new('RGB', (160, 120), (90, 120, 60)).save(folder / name)
    model = MODELS.build(Config.fromfile(config_path('rtdetr_r18vd')).model)
    torch.save({'state_dict': model.state_dict()}, folder / 'ours.pth')
    convert_file(
        folder / 'ours.pth', folder / 'rtdetr_r18vd_5x_coco_objects365_from_paddle.pth', 'mmdet', target='rtdetr'
    )
    return folder


def test_the_blocks_of_the_pages_run(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One page after another, as they are read."""
    monkeypatch.chdir(reader)
    trained = Path('work_dirs/rtdetr_r18vd_my-set')
    for name in RUN:
        namespace: dict[str, Any] = {}
        if name in ('prediction', 'deployment'):
            namespace['model'] = Detector(trained, device='cpu').model
        for block in blocks(f'{name}.md'):
            if block.not_run is None and block.language == 'python':
                python(block.text, namespace)
            for words in lines(block) if block.not_run is None and block.language == 'bash' else ():
                assert run(words) == 0, f'{name}.md: {words}'
        if name == 'own-images':  # what the words in capitals stand for
            Path('config.py').symlink_to(trained / 'config.py')
            Path('checkpoint.pth').symlink_to(trained / 'epoch_1.pth')


def run(words: list[str]) -> object:
    """The status of a line of the shell."""
    if words[:3] == ['python', '-m', 'iouquery_runtime']:
        return runtime(words[3:])
    typed = command(words)
    assert typed is not None, f'of which program is {words}?'
    try:
        return main(quick(typed) if typed else [])
    except SystemExit as exit:
        return exit.code


def test_the_blocks_of_pythons_page_run(reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a Pascal VOC set; and the work folder that comes of it is a detector."""
    digits_as_voc(reader / 'data' / 'digits', tmp_path / 'my-set')
    shutil.copy(reader / 'street.jpg', tmp_path)
    (tmp_path / 'rtdetr_r18vd.pth').symlink_to(reader / 'rtdetr_r18vd.pth')
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {'MyHook': Hook}
    for block in blocks('python.md'):
        text = re.sub(r'epochs=50(, size=640, batch=8)?', 'epochs=1, size=64, batch=4', block.text)
        python(text.replace("analyze('queries')", "analyze('queries', images=2, pictures=1)"), namespace)
    assert Path('found.jpg').is_file() and Path('model.onnx').is_file() and Path('queries/index.html').is_file()
    assert namespace['checkpoint'] == tmp_path / 'work_dirs' / 'rtdetr_r18vd_my-set' / 'epoch_1.pth'
    assert isinstance(namespace['result'], Result) and len(namespace['result']) <= 300
    opened = Detector(namespace['checkpoint'].parent, device='cpu')
    ours, theirs = (detector('street.jpg', score_thr=0) for detector in (opened, namespace['detector']))
    assert len(ours) == len(theirs) > 0 and ours.boxes == pytest.approx(theirs.boxes)


def python(text: str, namespace: dict[str, Any]) -> None:
    """Run lines of Python, with small images; of a config, build the model."""
    if 'custom_imports' in text:
        cfg = Config.fromstring(text, '.py')
        with torch.device('meta'):
            MODELS.build(cfg.model)
    else:
        exec(text.replace('size=(640, 640)', 'size=(96, 96)'), namespace)


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a set of a few images, for an epoch."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / 'examples' / 'quickstart.ipynb').read_text(encoding='utf-8'))
    namespace: dict[str, Any] = {}
    for cell in notebook['cells']:
        text = ''.join(cell['source'])
        if text.startswith('!iouquery '):
            assert main([*shlex.split(text)[1:], '--num-train', '8', '--num-val', '4', '--image-size', '96']) == 0
        elif cell['cell_type'] == 'code':
            exec(re.sub(r'epochs = \d+', 'epochs = 1', text), namespace)
    assert namespace['checkpoint'].is_file() and namespace['metrics']['coco/bbox_mAP'] >= 0
    assert namespace['same'].boxes == pytest.approx(namespace['result'].boxes, abs=0.5)  # px

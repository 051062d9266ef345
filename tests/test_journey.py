"""The whole way, as a user goes it: data, training, a kill, resuming, testing, predicting; and what bad input gets."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import SMALL_MODEL
from started_run import ended, run_test, run_train

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.engine.launch import run_tool, train
from mmdet_iouquery.engine.resume import latest_checkpoint

TOOLS = Path(__file__).parents[1] / 'tools'
SIZE, STEPS = 64, 4


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=8, num_val=4, image_size=128, progress=False)


@pytest.fixture
def config(digits: Path, tmp_path: Path) -> Path:
    path = tmp_path / 'config.py'
    path.write_text(config_text(find_coco_set(digits), iters=1000, image_size=SIZE) + SMALL_MODEL)
    return path


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, TOOLS / f'{name}.py', *arguments]
    return subprocess.run([str(argument) for argument in command], capture_output=True, text=True, check=False)


def train_until_killed(config: Path, work_dir: Path) -> Path:
    """Train for ever, and kill the process as soon as a checkpoint is there."""
    command = [sys.executable, TOOLS / 'train.py', config, '--work-dir', work_dir]
    command += ['--cfg-options', f'default_hooks.checkpoint.interval={STEPS}']
    with open(work_dir.with_suffix('.txt'), 'w') as log:
        process = subprocess.Popen([str(argument) for argument in command], stdout=log, stderr=log)
        while process.poll() is None and latest_checkpoint(work_dir) is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    actual = latest_checkpoint(work_dir)
    assert actual is not None, work_dir.with_suffix('.txt').read_text()[-3000:]
    return actual


def test_train_kill_resume_test_predict(config: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / 'run'
    saved = train_until_killed(config, work_dir)
    done = int(saved.stem.removeprefix('iter_'))
    assert done % STEPS == 0

    total = done + STEPS
    options = [f'train_cfg.max_iters={total}', f'train_cfg.val_interval={total}', 'default_hooks.logger.interval=1']
    log = tmp_path / 'log'
    status, output = ended(log, run_train, config, '--work-dir', work_dir, '--resume', '--cfg-options', *options)
    assert status == 0, output[-3000:]
    assert f'resuming from {saved}' in output
    steps = [line.split('[')[1].split('/')[0].strip() for line in output.splitlines() if 'Iter(train)' in line]
    assert [int(step) for step in steps] == list(range(done + 1, total + 1))
    (scalars,) = (path for path in sorted(work_dir.glob('*/vis_data/scalars.json'))[1:])
    (metrics,) = (line for line in scalars.read_text().splitlines() if 'bbox_mAP' in line)
    assert json.loads(metrics)['step'] == total and 'selection/prop_both' in json.loads(metrics)
    final = work_dir / f'iter_{total}.pth'
    assert latest_checkpoint(work_dir) == final

    status, output = ended(log, run_test, work_dir, '--work-dir', tmp_path / 'test', '--out', tmp_path / 'found')
    assert status == 0, output[-3000:]
    assert f'{work_dir} stands for {work_dir / "config.py"} and {final}' in output
    metrics = json.loads((tmp_path / 'found.metrics.json').read_text())
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    assert len(json.loads((tmp_path / 'found.bbox.json').read_text())) > 0

    predicted_like_mmdet(config, final)


def predicted_like_mmdet(config: Path, checkpoint: Path) -> None:
    """mmdet's DetInferencer takes our config and checkpoint, and finds what the model finds."""
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(model=str(config), weights=str(checkpoint), device='cpu', show_progress=False)
    image = sorted(Path(inferencer.cfg.val_dataloader.dataset.data_prefix.img).glob('*.jpg'))[0]
    (result,) = inferencer(str(image), no_save_vis=True, return_datasamples=False)['predictions']
    scores, boxes = torch.tensor(result['scores']), torch.tensor(result['bboxes'])
    assert len(scores) == 50 and (scores[:-1] >= scores[1:]).all() and scores.max() <= 1
    assert boxes.min() >= 0 and boxes.max() <= 128 + 1e-3


def test_quickstart_on_ones_own_data(digits: Path, tmp_path: Path) -> None:
    """As a script, whose stages are scripts; what a second call does is in test_second_calls.py."""
    work_dir = tmp_path / 'my run'
    done = tool('quickstart', '--data', digits, '--work-dir', work_dir, '--image-size', SIZE, '--iters', 3)
    assert done.returncode == 0, done.stderr[-3000:]
    for line in ('COCO AP', 'pictures.png', 'iter_3.pth', 'config.py', 'index.html'):
        assert line in done.stdout
    assert len(list((work_dir / 'pictures').glob('*.png'))) == 4 and (work_dir / 'pictures.png').is_file()
    for figure in ('selection-quality', 'selection-thresholds', 'tokens-my-run-1', 'denoising-my-run-1', 'curves'):
        assert (work_dir / 'queries' / f'{figure}.png').is_file(), figure


@pytest.mark.parametrize(
    ('as_a_script', 'option', 'message'),
    [
        (True, 'model.bbox_head.num_classes=9', r'model.bbox_head.num_classes.*9.*10'),
        (False, 'train_dataloader.dataset.ann_file=/nowhere/train.json', r'/nowhere/train.json'),
        (False, 'load_from=/nowhere/weights.pth', r'there is no file /nowhere/weights.pth'),
    ],
    ids=['class count', 'annotations', 'weights'],
)
def test_bad_input_is_said_before_training(
    as_a_script: bool, option: str, message: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(config), '--work-dir', str(tmp_path / 'run'), '--cfg-options', option]
    if as_a_script:
        done = tool('train', *arguments)
        status, output = done.returncode, done.stderr
    else:
        status, output = run_tool(lambda: train(arguments)), capsys.readouterr().err
    assert status == 2 and 'Traceback' not in output
    errors = [line for line in output.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1 and re.search(message, errors[0]), output
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_mmdets_own_train_tool_runs_our_config(config: Path, tmp_path: Path) -> None:
    """Started by mmdet's script, our parts come in by the config's one import line."""
    script = Path(importlib.util.find_spec('mmdet').origin).parent / '.mim' / 'tools' / 'train.py'
    arguments = [str(config), '--work-dir', str(tmp_path / 'run')]
    arguments += ['--cfg-options', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'param_scheduler.0.end=1']
    # the import stands in for compiled operators where mmcv has none, as mmdet does not start without
    code = f'import sys, runpy, mmdet_iouquery; sys.argv[1:] = {arguments!r}; '
    code += f'runpy.run_path({str(script)!r}, run_name="__main__")'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'run' / 'iter_2.pth').is_file() and 'coco/bbox_mAP' in done.stdout

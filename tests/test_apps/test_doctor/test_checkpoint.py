"""``doctor checkpoint FILE``: what it finds, what it refuses, and that nothing from the file is run."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import FAMILY, RunsCode, small_detector
from mmengine.logging import MessageHub

from mmdet_iouquery.apps.doctor import command as doctor
from mmdet_iouquery.apps.doctor.checkpoint import inspect_checkpoint

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = {'w': torch.arange(6.0).view(2, 3), 'half': torch.ones(4).half(), 'steps': torch.tensor(3)}


def training_checkpoint() -> dict[str, Any]:
    """As mmengine's runner writes it: the log is a history of numpy's numbers."""
    hub = MessageHub('doctor checkpoint')
    hub.update_scalar('train/loss', np.float64(1.5))
    return {
        'meta': {
            'epoch': 3,
            'iter': 40,
            'dataset_meta': {'classes': ('cat', 'do\x1b[2Jg')},
            'mmengine_version': '0.10',
        },
        'state_dict': WEIGHTS,
        'message_hub': hub.state_dict(),
        'optimizer': {'state': {}, 'param_groups': [{'lr': 0.1}]},
    }


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('where', ['meta', 'state_dict', 'beside'])
def test_code_is_refused_and_not_run(
    where: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('MARKER_FOLDER', str(tmp_path / 'it ran'))
    path = tmp_path / 'model.pth'
    torch.save({**training_checkpoint(), where: RunsCode()}, path, _use_new_zipfile_serialization=zipped)
    assert doctor.main(['checkpoint', str(path)]) == 2
    output = capsys.readouterr()
    assert output.out == '' and output.err.startswith(f'error: {path} holds more than tensors (')
    assert output.err.count('\n') == 1 and 'run code' in output.err and not (tmp_path / 'it ran').exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / 'it ran').exists(), 'whoever unpickles the file runs it'


@pytest.mark.parametrize('protocol', [2, 4, 5])
@pytest.mark.filterwarnings('error')
def test_a_bare_pickle_is_refused_by_what_it_would_run(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('MARKER_FOLDER', str(tmp_path / 'it ran'))
    path = tmp_path / 'model.pth'
    path.write_bytes(pickle.dumps({'state_dict': RunsCode()}, protocol=protocol))
    assert doctor.main(['checkpoint', str(path)]) == 2
    output = capsys.readouterr().err
    assert re.match(
        rf'error: {re.escape(str(path))} holds more than tensors \((posix|nt)\.mkdir\), and reading', output
    )
    assert output.count('\n') == 1 and not (tmp_path / 'it ran').exists()


@pytest.mark.parametrize('zipped', [True, False])
def test_a_torn_or_changed_file_is_refused(zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / 'model.pth'
    torch.save({'w': torch.ones(5000)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    assert doctor.main(['checkpoint', str(path)]) == 0
    path.write_bytes(whole[: len(whole) // 2])
    assert doctor.main(['checkpoint', str(path)]) == 2
    if zipped:  # the older format has no checksums, which is what the report says of it
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 1
        path.write_bytes(changed)
        assert doctor.main(['checkpoint', str(path)]) == 2
        assert 'is damaged: its record' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'content'), [('none.pth', None), ('page.pth', b'<html>'), ('empty.pth', b'')])
def test_what_is_no_checkpoint_is_refused(
    name: str, content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert doctor.main(['checkpoint', str(tmp_path / name)]) == 2
    output = capsys.readouterr()
    assert output.out == '' and output.err.count('\n') == 1 and str(tmp_path / name) in output.err


def test_a_training_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / 'iter_40.pth'
    torch.save(training_checkpoint(), path)
    facts = inspect_checkpoint(path)
    assert (facts.place, facts.tensors, facts.numbers) == ('state_dict', 3, 6 + 4 + 1)
    assert facts.types == {'float32': 1, 'float16': 1, 'int64': 1} and facts.not_finite == ()
    assert facts.training == {'epoch': 3, 'iter': 40} and facts.has_checksums and facts.average == 'none'
    assert facts.beside == ('meta', 'message_hub', 'optimizer')
    assert doctor.main(['checkpoint', str(path)]) == 0
    text = capsys.readouterr().out
    assert 'goes on with --resume from epoch 3, iteration 40' in text and '2: cat, do?[2Jg' in text
    assert text.isascii() and '\x1b' not in text, 'names must not reach the terminal as commands'
    assert doctor.main(['checkpoint', str(tmp_path)]) == 0 and capsys.readouterr().out == text, 'of a work folder'
    path.write_bytes(path.read_bytes()[:-40])
    assert doctor.main(['checkpoint', str(tmp_path)]) == 2
    assert f'the folder {tmp_path} has no whole checkpoint; name a file' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['DEIMv2-X', 'ECDet-S'])
def test_a_detector_on_a_vit(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Buffers count: the rotary periods among them."""
    weights = small_detector(**FAMILY[name]).state_dict()
    torch.save({'state_dict': weights}, tmp_path / 'vit.pth')
    facts = inspect_checkpoint(tmp_path / 'vit.pth')
    assert 'backbone.vit.rotary_periods' in weights and facts.tensors == len(weights) and not facts.not_finite
    assert facts.numbers == sum(value.numel() for value in weights.values())
    assert doctor.main(['checkpoint', str(tmp_path / 'vit.pth')]) == 0
    assert 'none to go on from: weights alone' in capsys.readouterr().out


def test_weights_alone(tmp_path: Path) -> None:
    path = tmp_path / 'model.pth'
    torch.save({'w': torch.tensor([1.0, float('nan')])}, path, _use_new_zipfile_serialization=False)
    facts = inspect_checkpoint(path)
    assert (facts.place, facts.training, facts.classes, facts.has_checksums) == ('', None, None, False)
    assert facts.not_finite == ('w',)


def test_averages_are_told_apart(tmp_path: Path) -> None:
    """mmengine's hook writes the average as ``state_dict``; the authors' training writes it as ``ema.module``."""
    torch.save({**training_checkpoint(), 'ema_state_dict': WEIGHTS}, tmp_path / 'ours.pth')
    torch.save({'model': WEIGHTS, 'ema': {'module': {'a': torch.ones(1)}, 'updates': 1}}, tmp_path / 'theirs.pth')
    ours, theirs = inspect_checkpoint(tmp_path / 'ours.pth'), inspect_checkpoint(tmp_path / 'theirs.pth')
    assert ours.average.startswith('the weights in state_dict are the average') and ours.tensors == 3
    assert theirs.average == 'the weights are the average' and (theirs.place, theirs.tensors) == ('ema.module', 1)


def test_it_reads_training_checkpoints_from_the_command_line(tmp_path: Path) -> None:
    """Where the package itself is not set up by the import."""
    torch.save(training_checkpoint(), tmp_path / 'iter_40.pth')
    command = [sys.executable, '-m', 'mmdet_iouquery.doctor', 'checkpoint', str(tmp_path / 'iter_40.pth'), '--json']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)['training'] == {'epoch': 3, 'iter': 40}


def test_an_exported_file_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('onnxruntime')
    exported_files = pytest.importorskip('exported_files')
    entries = {'precision': 'float16', 'config': 'rtdetr_r18vd_8xb2-72e_coco.py', 'opset': '17'}
    of_any = {**entries, 'names': {'0': 'cat', '1': 'do\x1b[2Jg', '2': 'c'}}
    fixed = exported_files.write_model(tmp_path / 'fixed.onnx', batch=2, format_changes=entries)
    free = exported_files.write_model(tmp_path / 'free.onnx', size=None, format_changes=of_any)
    assert doctor.main(['checkpoint', '--json', str(fixed)]) == 0
    actual = json.loads(capsys.readouterr().out)
    assert actual == {
        'path': str(fixed),
        'classes': [*exported_files.NAMES],
        'image_size': [64, 64],
        'default_image_size': [64, 64],
        'batch_size': 2,
        'input': 'float32-nchw',
        'output': 'detections',
        'max_per_img': 10,
        'score_thr': None,
        'overlap_thr': None,
        'calibrated': False,
        **entries,
    }
    assert doctor.main(['checkpoint', str(free)]) == 0
    text = capsys.readouterr().out
    assert 'classes     3: cat, do?[2Jg, c\n' in text and 'any multiples of 32, 64x64 unless told otherwise' in text
    assert 'config      rtdetr_r18vd_8xb2-72e_coco.py\n' in text and 'batch       any\n' in text
    (tmp_path / 'torn.onnx').write_bytes(fixed.read_bytes()[:100])
    for name, message in (('torn', r'is not an ONNX file that onnxruntime .* can run'), ('none', 'there is no file')):
        assert doctor.main(['checkpoint', str(tmp_path / f'{name}.onnx')]) == 2
        assert re.search(message, capsys.readouterr().err)

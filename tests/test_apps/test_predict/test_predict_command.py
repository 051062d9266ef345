"""``tools/predict.py CONFIG CHECKPOINT``: the detections of the test tool, to the bit."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import take_family
from mmdet.registry import MODELS
from mmengine.config import Config
from runs import SMALL_MODEL
from tolerances import within

from iouquery_runtime import InputError as RuntimeInputError
from iouquery_runtime.jobs.worker import ExportedOpener, Opener
from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.export.command import export
from mmdet_iouquery.apps.predict import command
from mmdet_iouquery.apps.predict.torch_detector import TorchOpener
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.engine.launch import run_tool
from mmdet_iouquery.engine.launch import test as run_test
from mmdet_iouquery.errors import InputError

pytest.importorskip('ray')
pytest.importorskip('pyarrow')
ROOT = Path(__file__).resolve().parents[3]
VAL = 9


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, a small model (``config.py``), weights at random, and what the test tool finds: ``found.bbox.json``."""
    folder = tmp_path_factory.mktemp('predict')
    data = build_digits(folder / 'digits', num_train=2, num_val=VAL, image_size=96, progress=False)
    text = config_text(find_coco_set(data), iters=1, image_size=64)
    (folder / 'config.py').write_text(text + SMALL_MODEL)
    save_weights(Config.fromfile(folder / 'config.py'), folder / 'weights.pth')
    model_files = [str(folder / name) for name in ('config.py', 'weights.pth')]
    more = ['--out', str(folder / 'found'), '--work-dir', str(folder / 'tested'), '--no-check']
    run_test([*model_files, *more, '--cfg-options', 'test_dataloader.batch_size=4'])
    return folder


def save_weights(cfg: Config, path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    meta = dict(dataset_meta=dict(classes=tuple('0123456789')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)


def opener(folder: Path, **settings: object) -> TorchOpener:
    return TorchOpener(Config.fromfile(folder / 'config.py'), folder / 'weights.pth', **settings)  # type: ignore[arg-type]


def detected(opener: Opener, paths: list[Path]) -> list:
    detect = opener.open()
    return detect([opener.prepare(path.read_bytes(), str(path)) for path in paths])


def images(folder: Path) -> list[Path]:
    return sorted((folder / 'digits' / 'val').iterdir())


def test_the_command_gives_what_the_test_tool_gives(folder: Path) -> None:
    """Every number of the results file is the same, in batches of 4 as of the test."""
    words = [folder / 'config.py', folder / 'weights.pth', '--images', folder / 'digits' / 'annotations' / 'val.json']
    more = ['--root', folder / 'digits' / 'val', '-o', folder / 'out', '--workers', '1', '--batch-size', '4']
    line = [sys.executable, ROOT / 'tools' / 'predict.py', *words, *more, '--format', 'coco']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([*map(str, line)], capture_output=True, text=True, env=environment, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    actual, expected = (
        sorted(json.loads(path.read_text()), key=lambda row: (row['image_id'], -row['score'], row['bbox']))
        for path in (folder / 'out' / 'results.json', folder / 'found.bbox.json')
    )
    assert len(actual) == VAL * 50 and actual == expected
    dataset = json.loads((folder / 'out' / 'coco.json').read_text())
    labels = json.loads((folder / 'digits' / 'annotations' / 'val.json').read_text())
    for key in ('id', 'file_name', 'width', 'height'):
        assert sorted(image[key] for image in dataset['images']) == sorted(image[key] for image in labels['images'])
    assert [category['name'] for category in dataset['categories']] == [*'0123456789']


def test_a_threshold_cuts_before_the_calibration(folder: Path) -> None:
    """As of the runtime: of a head that calibrates, the score before that counts."""
    everything = detected(opener(folder), images(folder))
    threshold = float(np.median(everything[0].scores))
    cut = detected(opener(folder, score_thr=threshold), images(folder))
    for all_of_it, kept in zip(everything, cut):
        np.testing.assert_array_equal(kept.scores, all_of_it.scores[all_of_it.scores > np.float32(threshold)])
    assert 0 < len(cut[0]) < len(everything[0]) == 50
    cfg = Config.fromfile(folder / 'config.py')
    cfg.model.test_cfg.calibration = dict(scores=[0.0, 1.0], precision=[0.5, 1.0])
    calibrated = detected(TorchOpener(cfg, folder / 'weights.pth', score_thr=threshold), images(folder))
    np.testing.assert_allclose(calibrated[0].scores, 0.5 + cut[0].scores / 2, rtol=1e-6)  # scores of single precision


def test_it_travels_to_workers_and_prepared_finds_the_same(folder: Path) -> None:
    expected = detected(opener(folder), images(folder))
    for other in (pickle.loads(pickle.dumps(opener(folder))), opener(folder, prepare=True)):
        for wanted, actual in zip(expected, detected(other, images(folder))):
            np.testing.assert_allclose(actual.scores, wanted.scores, **within(torch.float32))
            assert (actual.width, actual.height) == (96, 96)


@pytest.mark.parametrize('name', ['DEIMv2-Atto', 'ECDet-S'])
def test_a_checkpoint_and_its_exported_file_find_the_same(name: str, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip('onnxslim')
    cfg = Config.fromfile(folder / 'config.py')
    take_family(cfg, name)
    cfg.dump(tmp_path / 'config.py')
    save_weights(cfg, tmp_path / 'weights.pth')
    files = [str(tmp_path / file) for file in ('config.py', 'weights.pth', 'model.onnx')]
    export([*files[:2], '-o', files[2], '--no-verify'])
    exported = ExportedOpener(files[2])
    for wanted, actual in zip(detected(opener(tmp_path), images(folder)), detected(exported, images(folder))):
        assert wanted.width == actual.width == 96 and len(wanted.scores) == len(actual.scores) == 50
        np.testing.assert_allclose(actual.scores, wanted.scores, **within(torch.float32))


def test_settings_say_what_detections_depend_on(folder: Path) -> None:
    """A part of the config that training alone reads is none of it."""
    before = opener(folder).settings
    assert before == opener(folder).settings and before['model'] == 'weights.pth'
    cfg = Config.fromfile(folder / 'config.py')
    cfg.optim_wrapper.optimizer.lr = 1.0
    assert TorchOpener(cfg, folder / 'weights.pth').settings == before
    cfg.model.test_cfg.max_per_img = 7
    after = TorchOpener(cfg, folder / 'weights.pth').settings
    assert [name for name in before if before[name] != after[name]] == ['config']
    changed = opener(folder, score_thr=0.5, prepare=True).settings
    assert [name for name in before if before[name] != changed[name]] == ['score_thr', 'prepare']


def test_what_is_no_image_is_told(folder: Path) -> None:
    with pytest.raises(RuntimeInputError, match=r'a.jpg: .*; repair the file, or leave it out'):
        opener(folder).prepare(b'no image', 'a.jpg')


def status_of(arguments: list[str]) -> int:
    try:
        return run_tool(lambda: command.predict(arguments))
    except SystemExit as left:
        return int(left.code or 0)


def test_bad_input_is_a_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ['--images', str(folder / 'digits' / 'val'), '-o', str(tmp_path / 'out')]
    config, weights = str(folder / 'config.py'), str(folder / 'weights.pth')
    for given, message in {
        (config,): 'or two files, CONFIG CHECKPOINT',
        (config, weights, weights): 'or two files, CONFIG CHECKPOINT',
        ('model.onnx', weights): 'is an exported file, which is used as it is',
        ('model.onnx', '--prepare'): 'is an exported file, which is used as it is',
        ('model.onnx',): 'there is no file',
        (config, str(tmp_path / 'gone.pth')): 'gone.pth',
        (config, weights, '--score-thr', '1'): r'--score-thr must lie in [0, 1), got 1.0',
        (config, weights, '--cfg-options', 'model.bbox_head.embed_dims=48'): 'error: ',
    }.items():
        assert status_of([*given, *where]) == 2
        printed = capsys.readouterr()
        assert message in printed.err and len(printed.err.strip().splitlines()) == 1, printed.err
        assert not (tmp_path / 'out').exists()


def test_a_config_without_a_pipeline_or_names_is_refused(folder: Path) -> None:
    cfg = Config.fromfile(folder / 'config.py')
    cfg.test_dataloader = cfg.val_dataloader = None
    with pytest.raises(InputError, match='has neither a test_dataloader nor a val_dataloader with a pipeline'):
        TorchOpener(cfg, folder / 'weights.pth')

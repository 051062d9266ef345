"""``tools/export.py``: a config and a checkpoint to one file, or one sentence."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import metadata, operators
from helpers import NARROW
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_iouquery import config_path
from mmdet_iouquery.apps.export import command
from mmdet_iouquery.apps.export.command import export
from mmdet_iouquery.config_files import PACKAGE
from mmdet_iouquery.deploy.model_source import check_source
from mmdet_iouquery.engine.detector import read_config
from mmdet_iouquery.engine.launch import run_tool
from mmdet_iouquery.errors import InputError

PLAIN = dict(type='Resize', scale=(96, 64), keep_ratio=False, backend='pillow')


def config(path: Path, *steps: dict[str, Any], **model: Any) -> Path:
    """Writes a digits config of a narrow model whose test pipeline has these steps between loading and packing."""
    base = config_path('quickstart/rtdetr_r18vd_digits.py')
    changes = {f'model.{key.replace("__", ".")}': value for key, value in {**NARROW, **model}.items()}
    pipeline = [dict(type='LoadImageFromFile'), *steps, dict(type='PackDetInputs')]
    cfg = Config.fromfile(base)
    cfg.merge_from_dict(changes)
    cfg.test_dataloader.dataset.pipeline = cfg.val_dataloader.dataset.pipeline = pipeline
    cfg.dump(path)
    return path


@pytest.fixture(scope='module')
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A config and a checkpoint of it."""
    folder = tmp_path_factory.mktemp('given')
    path = config(folder / 'narrow_digits.py', PLAIN)
    model = MODELS.build(Config.fromfile(path).model)
    checkpoint = folder / 'narrow.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, checkpoint)
    return str(path), str(checkpoint)


def test_a_checkpoint_becomes_one_file(
    given: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'new' / 'model.onnx'
    report = export([*given, '-o', str(path)])
    assert report is not None
    entries = metadata(path)
    assert [*json.loads(entries['names']).values()] == [*'0123456789']
    assert entries['config'] == 'narrow_digits.py'
    assert entries['checkpoint_sha256'] == hashlib.sha256(Path(given[1]).read_bytes()).hexdigest()
    values = json.loads(entries['model'])
    assert values['type'] == 'SingleStageDetector' and values['bbox_head.num_classes'] == 10
    assert not [key for key in values if 'init_cfg' in key or 'criterion' in key]
    assert json.loads(entries['imgsz']) == json.loads(entries['default_imgsz']) == [64, 96]
    assert json.loads(entries['resize']) == {'mode': 'stretch', 'interpolation': 'bilinear', 'antialias': True}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'{path}: {path.stat().st_size / 1e6:.1f} MB, {report.num_nodes} nodes, opset 17'
    assert [line.partition(':')[0] for line in lines[1:]] == [f'as the model, {n} x 64x96' for n in (1, 2, 3)]
    before = path.read_bytes()
    assert export([*given, '-o', str(path)]) is None and path.read_bytes() == before  # called again
    assert 'is written already, from this checkpoint and with these settings' in capsys.readouterr().out
    other = r'exists already and was written with other settings \(raw: False there, True asked for now\)'
    with pytest.raises(InputError, match=other):
        export([*given, '-o', str(path), '--raw'])
    path.write_bytes(before[:1000])
    with pytest.raises(InputError, match=r'exists already and is another file; .* --force'):
        export([*given, '-o', str(path)])
    assert [file.name for file in path.parent.iterdir()] == ['model.onnx']


def test_a_file_is_written_already_exactly_if_nothing_of_it_would_differ(
    given: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an edited config of the same name, without a look at its model."""
    out, edited = tmp_path / 'model.onnx', tmp_path / Path(given[0]).name
    export([*given, '-o', str(out), '--no-verify', '--size', '64', '96'])
    monkeypatch.setattr(command, 'load_detector', lambda *_: pytest.fail('it would be written anew'))
    another = r'exists already and was written with other values of the model \(.* asked for now\); .* --force'
    for change, refusal in (
        ('', None),
        ('randomness = dict(seed=5)', None),
        ("model['train_cfg'] = dict(a=1)", None),
        ("model['test_cfg']['keep_selected'] = False", None),
        ("model['test_cfg']['score_thr'] = 0.5", another),
        ("model['test_cfg']['num_queries'] = 5", another),
        ("model['test_cfg']['num_decoder_layers'] = 1", another),
        ("model['data_preprocessor']['mean'] = [1, 2, 3]", another),
        ("test_dataloader['dataset']['metainfo'] = dict(classes=[*'abcdefghij'])", 'with other names of classes'),
        ("test_dataloader['dataset']['pipeline'][1]['scale'] = (64, 64)", 'with another test pipeline'),
        ("test_dataloader['dataset']['pipeline'][1]['backend'] = 'cv2'", 'with another test pipeline'),
    ):
        edited.write_text(f'{Path(given[0]).read_text()}\n{change}\n')
        line = [str(edited), given[1], '-o', str(out), '--no-verify', '--size', '64', '96']
        with nullcontext() if refusal is None else pytest.raises(InputError, match=refusal):
            assert export(line) is None


def test_openvinos_files_are_written_and_known_again(
    given: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('openvino')
    path = tmp_path / 'model.xml'
    report = export([*given, '-o', str(path), '--no-verify'])
    files = [path, path.with_suffix('.bin')]
    assert report is not None and report.path == path
    assert report.num_bytes == sum(file.stat().st_size for file in files) and sorted(tmp_path.iterdir()) == files[::-1]
    assert export([*given, '-o', str(path), '--no-verify']) is None
    assert 'is written already' in capsys.readouterr().out
    with pytest.raises(InputError, match='--triton is for ONNX files'):
        export([*given, '-o', str(path), '--triton', str(tmp_path)])


def test_a_repository_for_triton_is_written_beside_the_file(given: tuple[str, str], tmp_path: Path) -> None:
    path, folder = tmp_path / 'model.onnx', tmp_path / 'models'
    for _ in range(2):  # called again
        export([*given, '-o', str(path), '--no-verify', '--triton', str(folder)])
        assert (folder / 'model' / '1' / 'model.onnx').read_bytes() == path.read_bytes()
        assert 'name: "model"' in (folder / 'model' / 'config.pbtxt').read_text()


def test_a_folder_that_is_no_repository_is_refused_before_work_starts(
    given: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, 'load_detector', lambda *_: pytest.fail('work has started'))
    (tmp_path / 'file').touch()
    (tmp_path / 'models' / 'model').mkdir(parents=True)
    for folder, name, message in (
        ('file', 'model', 'file: (File exists|Not a directory); name another with --triton'),
        ('models', 'model', 'models/model exists and was not written by this command; name another folder or model'),
        ('new', 'my model', "the name of a model in Triton must be made of letters, .*, got 'my model'"),
    ):
        with pytest.raises(InputError, match=message):
            export([*given, '-o', str(tmp_path / f'{name}.onnx'), '--triton', str(tmp_path / folder)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'models']


def test_for_tensorrt_it_is_of_gathers_and_says_what_to_type(
    given: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'model.onnx'
    options = ['--target', 'tensorrt', '--size', '96', '128', '--input', 'uint8-nhwc', '--no-verify']
    export([*given, '-o', str(path), *options])
    assert operators(path)['GridSample'] == 0 and metadata(path)['attention'] == 'gather'
    output = capsys.readouterr().out
    assert 'not compared with the model' in output and 'these lines were not run here' in output
    assert f'trtexec --onnx={path} ' in output and f'polygraphy run {path} --trt ' in output
    assert '--minShapes=images:1x96x128x3,sizes:1x2 ' in output and '--maxShapes=images:8x96x128x3,sizes:8x2' in output


def test_options_against_the_target_are_refused(given: tuple[str, str], tmp_path: Path) -> None:
    for options in (['--dynamic-size'], ['--attention', 'grid_sample'], ['--opset', '18']):
        with pytest.raises(InputError, match='--target tensorrt is for a fixed size, --attention gather and opset 17'):
            export([*given, '-o', str(tmp_path / 'model.onnx'), '--target', 'tensorrt', *options])


@pytest.mark.parametrize(
    ('steps', 'message'),
    [
        ([dict(PLAIN, keep_ratio=True)], r'resizes with keep_ratio=True, .*keep_ratio=False\) alone, and train'),
        ([PLAIN, dict(type='Pad', size_divisor=32)], r'pads images \(Pad\), and a graph cannot know where they end'),
        ([PLAIN, PLAIN], r'resizes images 2 times'),
        ([], r'resizes images 0 times'),
        ([PLAIN, dict(type='CenterCrop', crop_size=8)], r'has CenterCrop, which no runtime of exported files does'),
    ],
)
def test_a_pipeline_that_no_runtime_has_is_refused(
    steps: list[dict[str, Any]], message: str, given: tuple[str, str], tmp_path: Path
) -> None:
    path = config(tmp_path / 'given.py', *steps)
    with pytest.raises(InputError, match=message) as caught:
        export([str(path), given[1], '-o', str(tmp_path / 'model.onnx')])
    assert str(path) in str(caught.value) and [*tmp_path.iterdir()] == [path]


def test_a_detector_that_has_no_graph_is_refused_before_its_pipeline_is(given: tuple[str, str], tmp_path: Path) -> None:
    """Whoever trained anew with another pipeline, as that refusal says, would have done so for nothing."""
    path = config(tmp_path / 'given.py', dict(PLAIN, keep_ratio=True))
    text = path.read_text()
    path.write_text(f"{text}\nmodel.update(type='RetinaNet', bbox_head=dict(type='RetinaHead'))\n")
    with pytest.raises(InputError, match=r'^RetinaNet with RetinaHead cannot be exported; take a detector'):
        export([str(path), given[1], '-o', str(tmp_path / 'model.onnx')])
    path.write_text(text)
    with pytest.raises(InputError, match=r'keep_ratio=True, .*scale=\(96, 96\), keep_ratio=False\) alone, and train'):
        check_source(read_config(path))


def test_a_checkpoint_of_another_model_is_refused(
    given: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path / 'given.py', PLAIN, bbox_head__decoder__num_layers=2)
    status = run_tool(lambda: export([str(path), given[1], '-o', str(tmp_path / 'model.onnx')]))
    assert status == 2 and [*tmp_path.iterdir()] == [path]
    assert capsys.readouterr().err.startswith(f'error: {given[1]} does not fit the model: weights ')


def test_an_entry_that_no_part_takes_is_named(given: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"building the model fails at model: TypeError: .*'nope'"):
        export([*given, '-o', str(tmp_path / 'model.onnx'), '--cfg-options', 'model.nope=3'])
    with pytest.raises(InputError, match='TensorRT reads ONNX files'):
        export([*given, '-o', str(tmp_path / 'model.xml'), '--target', 'tensorrt'])
    assert not [*tmp_path.iterdir()]


def test_the_tool_ends_in_one_sentence(given: tuple[str, str], tmp_path: Path) -> None:
    tool = [sys.executable, str(PACKAGE.parent / 'tools' / 'export.py'), *given]
    done = subprocess.run(
        [*tool, '-o', str(tmp_path / 'model.onnx'), '--size', '100', '96'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: size must be a height and a width, multiples of 32,') and line.endswith('[96, 96]')

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from helpers import RunsCode
from torch import Tensor

from mmdet_iouquery.checkpoints import convert
from mmdet_iouquery.checkpoints.convert_file import convert_file
from mmdet_iouquery.checkpoints.files import read_checkpoint, write_checkpoint
from mmdet_iouquery.checkpoints.safetensors_file import SAFETENSORS_LINE
from mmdet_iouquery.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
NAME = 'rtdetr_r18_320x320'
WEIGHTS = {'w': torch.arange(6.0).view(2, 3), 'steps': torch.tensor(3)}


@pytest.fixture(scope='module')
def theirs(golden_weights: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
    return golden_weights(NAME)


@pytest.fixture(scope='module')
def training_file(theirs: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the authors' training leaves it: the average beside the model, a table for a fixed size, an optimizer."""
    average = {f'module.{key}': value for key, value in theirs.items()}
    average['module.decoder.anchors'] = torch.zeros(1, 2100, 4)
    content = {
        'last_epoch': 71,
        'model': {key: torch.zeros_like(value) for key, value in theirs.items()},
        'ema': {'module': average, 'updates': 7},
        'optimizer': {'state': {}, 'param_groups': [{'lr': 1e-4}]},
    }
    path = tmp_path_factory.mktemp('authors') / 'checkpoint.pth'
    torch.save(content, path)
    return path


def test_a_written_file_loads_without_code_and_is_equal(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'a.pth'
    write_checkpoint(path, WEIGHTS, {'source': 'test', 'epoch': 3})
    content = torch.load(path, weights_only=True)
    assert content.keys() == {'state_dict', 'meta'} and content['meta'] == {'source': 'test', 'epoch': 3}
    assert all(torch.equal(content['state_dict'][key], WEIGHTS[key]) for key in WEIGHTS)
    assert os.listdir(path.parent) == ['a.pth']


def test_a_view_does_not_bring_its_storage(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    write_checkpoint(path, {'w': torch.zeros(1000, 1000)[:2]}, {})
    assert path.stat().st_size < 20_000


def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    path.write_bytes(b'precious')
    with pytest.raises(InputError, match=r'a\.pth exists already.*--force'):
        write_checkpoint(path, WEIGHTS, {})
    assert path.read_bytes() == b'precious'
    write_checkpoint(path, WEIGHTS, {}, force=True)
    assert read_checkpoint(path)['state_dict'].keys() == WEIGHTS.keys()


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'a.pth'
    path.write_bytes(b'precious')

    def break_off(content: object, file: Any) -> None:
        file.write(b'half')
        raise OSError('no space left on device')

    monkeypatch.setattr(torch, 'save', break_off)
    with pytest.raises(InputError, match=r'cannot write .*no space left'):
        write_checkpoint(path, WEIGHTS, {}, force=True)
    assert path.read_bytes() == b'precious' and os.listdir(tmp_path) == ['a.pth']


@pytest.mark.parametrize('name', ['', 'a.safetensors', 'a'])
def test_other_destinations_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'is a folder|must end in \.pth'):
        write_checkpoint(tmp_path / name, WEIGHTS, {})


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('share', [0.0, 0.1, 0.5, 0.99])
def test_a_torn_file_is_refused(share: float, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    torch.save({'w': torch.zeros(10_000)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    assert read_checkpoint(path).keys() == {'w'}
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r'a\.pth is ((cut short or no|no|not a complete) checkpoint|empty)'):
        read_checkpoint(path)


def test_a_file_that_holds_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MARKER_FOLDER', str(tmp_path / 'it ran'))
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': RunsCode()}, path)
    with pytest.raises(InputError, match=r'a\.pth holds more than tensors \(\w+\.mkdir\).*weights_only=False'):
        read_checkpoint(path)
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(InputError, match=r'more than tensors \(torch\.nn\.modules\.linear\.Linear\)'):
        read_checkpoint(path)
    assert os.listdir(tmp_path) == ['a.pth']


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    path.write_text('<html>404: not found</html>')
    with pytest.raises(InputError, match='no checkpoint; a download may have stored an error page'):
        read_checkpoint(path)
    for text in ('.hello', 'hello', 'hello\n', ']', '0'):  # what torch's reader of pickles makes of them differs
        path.write_text(text)
        with pytest.raises(InputError, match=r'a\.pth is no checkpoint; a download may have stored an error page'):
            read_checkpoint(path)
    path.write_bytes(b'')
    with pytest.raises(InputError, match=r'a\.pth is empty; get the file again$'):
        read_checkpoint(path)
    pair = tmp_path / 'exported.bin'
    pair.write_bytes(bytes(8))
    pair.with_suffix('.xml').touch()
    with pytest.raises(InputError, match=r'exported\.bin holds the weights of the exported file .*exported\.xml, and'):
        read_checkpoint(pair)
    with zipfile.ZipFile(path, 'w') as archive:
        for name in ('a.csv', 'b/c.txt'):
            archive.writestr(name, 'text')
    with pytest.raises(
        InputError, match=r'a\.pth is a zip archive of other files \(a\.csv, b/c\.txt\), and no PyTorch'
    ):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match='it holds a list, not a dict'):
        read_checkpoint(path)
    with pytest.raises(InputError, match=r'there is no file .*b\.pth'):
        read_checkpoint(tmp_path / 'b.pth')
    with pytest.raises(InputError, match=r'has no model\.safetensors or pytorch_model\.bin'):
        read_checkpoint(tmp_path)


def test_safetensors_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('safetensors')
    from safetensors.torch import save_file

    path = tmp_path / 'model.safetensors'
    save_file(WEIGHTS, path)
    for source in (path, tmp_path):
        content = read_checkpoint(source)
        assert all(torch.equal(content[key], WEIGHTS[key]) for key in WEIGHTS)
    whole = path.read_bytes()
    for length in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match='cut short or no safetensors file'):
            read_checkpoint(path)
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(InputError, match=SAFETENSORS_LINE):
        read_checkpoint(path)


def test_the_tool_converts_the_average_and_accounts_for_every_key(
    training_file: Path,
    theirs: dict[str, Tensor],
    golden_detector: Callable[..., Any],
    tool: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    path = tmp_path / 'ours.pth'
    assert tool.main([str(training_file), str(path), '--source', 'rtdetr']) == 0
    summary = capsys.readouterr().out
    count = len(theirs)
    assert f"{count + 1} keys read from 'ema.module', {count} written" in summary
    assert 'dropped 1: decoder.anchors (tables for one input size' in summary
    assert 'left behind: last_epoch, model, optimizer, ema.updates' in summary

    content = torch.load(path, weights_only=True)
    expected = convert(theirs, 'rtdetr')
    assert content['state_dict'].keys() == expected.keys()
    assert all(torch.equal(content['state_dict'][key], expected[key]) for key in expected)
    golden_detector(NAME).load_state_dict(content['state_dict'], strict=True)
    meta = content['meta']
    assert meta['source_weights'] == 'ema.module'
    preprocessing = meta.pop('preprocessing')
    assert (preprocessing['mean'], preprocessing['std'], preprocessing['channel_order']) == ([0] * 3, [255] * 3, 'RGB')
    assert (preprocessing['scale'], preprocessing['keep_ratio']) == ([640, 640], False)
    assert {type(value) for value in meta.values()} <= {str, int}

    # and back
    authors = tmp_path / 'theirs.pth'
    assert tool.main([str(path), str(authors), '--source', 'mmdet', '--to', 'rtdetr']) == 0
    back = torch.load(authors, weights_only=True)['model']
    assert back.keys() == theirs.keys() and all(torch.equal(back[key], theirs[key]) for key in theirs)


def test_the_tool_replaces_classes(
    training_file: Path, tool: Any, tmp_path: Path, build_detector: Callable[..., Any], capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / 'ours.pth'
    arguments = [str(training_file), str(path), '--source', 'rtdetr', '--source-classes', 'coco']
    assert tool.main([*arguments, '--classes', 'zebra, Cat, wombat']) == 0
    summary = capsys.readouterr().out
    assert 'classes kept: zebra, Cat\n' in summary and 'classes started afresh: wombat\n' in summary
    content = torch.load(path, weights_only=True)
    assert content['meta']['dataset_meta'] == {'classes': ('zebra', 'Cat', 'wombat')}
    build_detector(18, num_classes=3).load_state_dict(content['state_dict'], strict=True)

    again = tmp_path / 'again.pth'  # the file names its classes by now
    arguments = [str(path), str(again), '--source', 'mmdet', '--classes', 'wombat,ant,zebra']
    for said in ('classes kept: wombat, zebra\n', 'nothing to do'):
        assert tool.main(arguments) == 0
        assert said in capsys.readouterr().out
    rows = torch.load(again, weights_only=True)['state_dict']['bbox_head.decoder.cls_heads.0.weight']
    old = content['state_dict']['bbox_head.decoder.cls_heads.0.weight']
    assert torch.equal(rows[0], old[2]) and torch.equal(rows[2], old[0])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--source', 'transformers'], "unknown key 'backbone."),
        (
            ['--source', 'rtdetr', '--classes', 'cat'],
            'does not name its classes; give --source-classes, in the',
        ),
        (['--source', 'rtdetr', '--source-classes', 'coco'], 'give --classes, those to write, as well'),
        (['--source', 'rtdetr', '--classes', 'a', '--source-classes', 'a,b'], '2 source classes were named'),
        (['--source', 'rtdetr_backbone', '--to', 'rtdetr'], 'only be written for mmdet'),
        (['--source', 'hgnetv2_backbone', '--to', 'rtdetr'], 'only be written for mmdet'),
    ],
)
def test_the_tool_says_what_is_wrong_and_writes_nothing(
    arguments: list[str], message: str, training_file: Path, tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / 'ours.pth'
    assert tool.main([str(training_file), str(path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith('error: ') and error.count('\n') == 1
    assert not path.exists()


def test_a_file_of_two_styles_reads_as_one(training_file: Path, tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    first = convert_file(training_file, path, 'rtdetr')
    again = convert_file(path, path, 'mmdet', force=True)
    assert again.num_written == first.num_written and again.conversion.wrapper == 'state_dict'
    with pytest.raises(InputError, match='exists already'):
        convert_file(path, path, 'mmdet')


def test_the_tool_runs_as_a_script(tmp_path: Path) -> None:
    script = ROOT / 'tools' / 'convert_checkpoint.py'
    command = [sys.executable, str(script), 'nowhere.pth', 'a.pth', '--source', 'rtdetr']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (
        done.returncode == 2 and done.stderr.splitlines()[-1] == 'error: there is no file nowhere.pth; correct the path'
    )

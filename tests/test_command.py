"""The command ``iouquery``: its table, what it answers before anything heavy is imported, and its scripts in tools/."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import DictAction
from PIL import Image

from mmdet_iouquery import choices
from mmdet_iouquery.apps import completion
from mmdet_iouquery.apps.benchmark import arguments as benchmark_arguments
from mmdet_iouquery.apps.benchmark import command as benchmark
from mmdet_iouquery.apps.commands import COMMANDS, load
from mmdet_iouquery.command_line import KeyValue, evaluation_parser
from mmdet_iouquery.config_options import read_options
from mmdet_iouquery.deploy.export import ExportSettings
from mmdet_iouquery.engine.launch import run_tool
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.main import main

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {command.tool: name for name, command in COMMANDS.items() if command.tool}
HEAVY = ('torch', 'mmengine', 'mmcv', 'mmdet', 'matplotlib', 'pyarrow', 'ray', 'cv2', 'onnxruntime', 'gradio', 'pandas')

HELP_OF_ALL = f"""
import sys
from iouquery import main
of_all = ([name, '--help'] for name in {[*COMMANDS]})
for words in ([], ['--help'], ['--version'], ['trian'], *of_all, ['train', '--amp', 'x']):
    sys.argv[1:] = words
    try:
        status = main()
    except SystemExit as end:
        status = end.code
    print('status of', *words, '=', status, flush=True)
print('imported:', *(name for name in {HEAVY!r} if name in sys.modules))
"""


def run(*words: object, path: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python, with ``path`` before all that it imports."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [*([path] if path else []), ROOT]))}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd, timeout=300)


def test_help_and_mistakes_import_nothing_heavy() -> None:
    done = run('-c', HELP_OF_ALL)
    statuses = dict(re.findall(r'^status of ?(.*) = (\w+)$', done.stdout, re.MULTILINE))
    assert done.stdout.splitlines()[-1] == 'imported:', done.stderr
    assert statuses.pop('trian') == statuses.pop('train --amp x') == '2'
    assert set(statuses.values()) == {'0'} and len(statuses) == 3 + len(COMMANDS), statuses
    assert not re.search(r'(?<!_)tools/\w+\.py', done.stdout), 'who installed the package has the command'
    flat = ' '.join(done.stdout.split())
    for name, command in COMMANDS.items():
        if command.parser:
            assert f'usage: iouquery {name} [-h]' in flat
            assert f'example: iouquery {name} {command.example} status' in flat
    assert "error: there is no command 'trian'; close to it: train" in done.stderr


def test_the_module_and_the_package_are_the_command() -> None:
    texts = {
        run(*words, '--help').stdout
        for words in (('-m', 'iouquery'), ('-m', 'mmdet_iouquery'), (ROOT / 'iouquery.py',))
    }
    (text,) = texts
    rows = re.findall(r'^  (\w+) +(.+)$', text, re.MULTILINE)
    assert rows == [(name, command.summary) for name, command in COMMANDS.items()]


@pytest.fixture
def without_torch(tmp_path: Path) -> Path:
    """A folder of packages that say so when they are imported."""
    for name in ('torch', 'mmengine', 'mmdet'):
        (tmp_path / f'{name}.py').write_text(f'raise RuntimeError("{name} was imported")')
    return tmp_path


@pytest.mark.parametrize('script', sorted(SCRIPTS))
def test_a_script_answers_before_torch_is_imported(script: str, without_torch: Path) -> None:
    asked = run(ROOT / 'tools' / script, '--help', path=without_torch)
    assert asked.returncode == 0 and asked.stdout.startswith(f'usage: {script} '), asked.stderr
    example = f'example: python tools/{script} {COMMANDS[SCRIPTS[script]].example}'
    assert ' '.join(asked.stdout.split()).endswith(example)
    mistaken = run(ROOT / 'tools' / script, '--no-such-option', path=without_torch)
    assert mistaken.returncode == 2 and f'{script}: error: ' in mistaken.stderr and 'imported' not in mistaken.stderr


def test_every_command_leads_somewhere() -> None:
    for name, command in COMMANDS.items():
        assert callable(load(command.run)), name
    over_the_table = {
        path.name
        for path in (ROOT / 'tools').glob('*.py')
        if 'from iouquery import main' in path.read_text(encoding='utf-8')
    }
    assert over_the_table == {*SCRIPTS}
    for script, name in SCRIPTS.items():
        assert f"main('{name}')" in (ROOT / 'tools' / script).read_text(encoding='utf-8')


def test_the_page_lists_every_command() -> None:
    page = (ROOT / 'docs' / 'commands.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\| `(\w+)` \| (?:`tools/(\w+\.py)`)? ?\|', page, re.MULTILINE)
    assert rows == [(name, command.tool) for name, command in COMMANDS.items()]


def test_ctrl_c_while_packages_are_imported(tmp_path: Path) -> None:
    """The signal comes from within the import itself."""
    text = 'import os, signal\n'
    text += 'signal.signal(signal.SIGINT, signal.default_int_handler)\n'  # which a shell's background ignores
    text += 'os.kill(os.getpid(), signal.SIGINT)\nwhile True: pass'
    (tmp_path / 'mmengine.py').write_text(text)
    for words in (('-m', 'iouquery', 'train'), (ROOT / 'tools' / 'train.py',)):
        done = run(*words, 'rtdetr_r18vd', path=tmp_path, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (130, 'stopped by SIGINT\n'), done.stderr


def test_ctrl_c_says_what_a_second_call_does(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    assert run_tool(stopped) == 130
    message = 'stopped by SIGINT before it was done; the same command starts again, or goes on where it was\n'
    assert capsys.readouterr().err == message


def test_a_reader_that_goes_away_ends_any_command_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after ``| head``; a pipe of another kind that breaks is still told."""
    (entry,) = (COMMANDS[name] for name in ('configs',))
    for is_light in (True, False):
        monkeypatch.setitem(COMMANDS, 'configs', entry._replace(is_light=is_light))
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, 'w') as gone:
            monkeypatch.setattr(sys, 'stdout', gone)
            assert main(['configs', 'rtdetr']) == 141
        monkeypatch.undo()

    def broken() -> None:
        raise BrokenPipeError

    monkeypatch.setattr('mmdet_iouquery.main._run', lambda *_: broken())
    with pytest.raises(BrokenPipeError):
        main(['configs'])


def test_an_exported_file_needs_neither_torch_nor_mmdet(tmp_path: Path) -> None:
    """What detects by one runs, and a mistake is told, where they do not import."""
    pytest.importorskip('onnxruntime')
    from exported_files import write_model

    for name in ('torch', 'mmengine', 'mmdet'):
        (tmp_path / f'{name}.py').write_text('raise RuntimeError(__name__)')
    write_model(tmp_path / 'model.onnx')
    Image.new('RGB', (40, 30)).save(tmp_path / 'a.png')
    done = run('-m', 'iouquery', 'detect', 'model.onnx', 'a.png', path=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '') and done.stdout.startswith('a.png 40x30: ')
    if importlib.util.find_spec('ray') is None or importlib.util.find_spec('pyarrow') is None:
        return
    words = ('predict', 'model.onnx', '--images', 'a.png', '-o', 'out')
    done = run('-m', 'iouquery', *words, '--dry-run', path=tmp_path, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith('images: 1\n'), done.stderr
    done = run('-m', 'iouquery', *words, '--workers', '0', path=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, 'error: --workers 0: name at least 1\n')


def test_mistakes_are_told_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    for name in ('torch', 'mmengine', 'mmdet'):
        (tmp_path / f'{name}.py').write_text('raise RuntimeError(__name__)')
    for words, message in {
        ('train', 'rtdetr_r18vd', '--epochs', '0'): '--epochs 0: name at least 1',
        ('train', 'rtdetr_r18vd', '--size', '100'): '--size 100: name a multiple of 32, from 64 on',
        ('train', 'rtdetr_r18vd', '--data', 'gone'): '--data: there is no file or folder gone',
        ('train', 'rtdetr_r18vd', '--weights', 'gone.pth'): '--weights: there is no file or folder gone.pth',
        ('data', 'gone'): f'no folder or file {tmp_path / "gone"}; name a set of images',
        ('test', 'rtdetr_r18vd', 'gone.pth'): 'there is no file gone.pth; correct the path',
        ('convert', 'gone.pth', 'a.pth', '--source', 'rtdetr'): 'there is no file gone.pth; correct the path',
        ('test', 'rtdetr_r18v', 'a.pth'): 'close to it: rtdetr_r18vd, ',
        ('export', 'rtdetr_r18v', 'a.pth', '-o', 'a.onnx'): 'close to it: rtdetr_r18vd, ',
    }.items():
        done = run('-m', 'iouquery', *words, path=tmp_path, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_an_environment_that_does_not_fit_is_told_without_a_traceback(tmp_path: Path) -> None:
    info = tmp_path / 'mmcv_full-1.7.2.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: mmcv-full\nVersion: 1.7.2\n')
    done = run('-m', 'iouquery', 'train', 'rtdetr_r18vd', path=tmp_path, cwd=tmp_path)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert done.stderr.startswith('error: mmdet_iouquery cannot run with the packages installed here.')


SPAWNS = """
import multiprocessing, sys
from iouquery import main

def registered(_):
    return 'mmdet_iouquery.models.dense_heads' in sys.modules and 'mmdet_iouquery.engine' in sys.modules

if __name__ == '__main__':
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        print(pool.map(registered, [0]), 'mmdet_iouquery' in sys.modules)
"""


def test_what_a_command_spawns_has_the_parts_registered(tmp_path: Path) -> None:
    """As the parent's own import of mmdet would fail where mmcv has no operators, so would the child's."""
    (tmp_path / 'program.py').write_text(SPAWNS)
    done = run(tmp_path / 'program.py', cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == '[True] False', done.stderr


def test_an_error_of_a_light_command_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['configs', '--show', 'rtdetr_r18v']) == 2
    output = capsys.readouterr()
    assert (
        output.out == ''
        and output.err.startswith("error: there is no shipped config 'rtdetr_r18v' ")
        and output.err.count('\n') == 1
    )


# --- arguments --------------------------------------------------------------------------------------------------------


def options(action: type[argparse.Action], *words: str) -> Any:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=action)
    return parser.parse_args(words).cfg_options


@pytest.mark.parametrize(
    'words',
    [
        (),
        ('--cfg-options', 'a.b=4', 'c=0.5', 'd=x=y', 'e='),
        ('--cfg-options', 'a=[1,(2,b)]', 'b=1,2', 'c=(640, 480)', 'd=True', 'e=None', "f='text'", 'g=[]', 'h=1e-3'),
        ('--cfg-options', 'a=1', '--cfg-options', 'b=2', 'a=3'),
    ],
)
def test_overrides_are_read_as_mmengine_reads_them(words: tuple[str, ...]) -> None:
    assert read_options(options(KeyValue, *words)) == options(DictAction, *words)


def test_overrides_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match='2'):
        options(KeyValue, '--cfg-options', 'a=1', 'word')
    assert "--cfg-options: 'word' is no KEY=VALUE, such as train_dataloader.batch_size=4" in capsys.readouterr().err
    with pytest.raises(InputError, match=r'^--cfg-options a=\[1,2: its brackets are not balanced; close each one$'):
        read_options({'a': '[1,2'})


@pytest.mark.parametrize('words', ['C X --out P', '--out P C X', 'C --out P X', '--out P C', 'C --out P --prepare'])
def test_files_may_stand_anywhere_among_options(words: str) -> None:
    args = evaluation_parser().parse_args(words.split())
    assert (args.config, args.checkpoint, args.out) == ('C', 'X' if 'X' in words else None, 'P')


def test_choices_are_those_of_what_does_the_work() -> None:
    assert [*benchmark._SUBJECTS] == [*benchmark_arguments.SUBJECTS]
    for name, values in (('input', choices.INPUTS), ('precision', choices.PRECISIONS), ('exporter', choices.EXPORTERS)):
        for value in values:
            assert getattr(ExportSettings(**{name: value}, opset=18), name) == value


# --- completion -------------------------------------------------------------------------------------------------------


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    line = f'source {script}; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _shtab_iouquery; '
    done = subprocess.run(
        ['bash', '-c', line + 'printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True, check=True, cwd='/'
    )
    return {*done.stdout.split()}


def test_bash_completes_commands_options_and_configs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('shtab')
    assert main(['completion', 'bash']) == 0
    script = tmp_path / 'completion.sh'
    script.write_text(capsys.readouterr().out)
    assert completed(script, 'iouquery', 'qu') == {'quickstart', 'quantize'}
    assert completed(script, 'iouquery', 'train', '--am') == {'--amp'}
    assert completed(script, 'iouquery', 'train', '--amp', '') >= {'float16', 'bfloat16'}
    assert completed(script, 'iouquery', 'train', 'rtdetr_r18vd_ma') == {
        'rtdetr_r18vd_mal',
        'rtdetr_r18vd_mal-50-queries',
        'rtdetr_r18vd_mal_128_digits',
    }
    assert completed(script, 'iouquery', 'doctor', 'data', 'dfine_hgnetv2-x') >= {'dfine_hgnetv2-x'}


def test_zsh_gets_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip('shtab')
    assert main(['completion', 'zsh']) == 0
    text = capsys.readouterr().out
    assert text.startswith('#compdef iouquery') and ' rtdetr_r18vd ' in text


def test_completion_without_its_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, 'shtab', None)
    assert main(['completion', 'bash']) == 2
    assert "pip install 'mmdet-iouquery[completion]'" in capsys.readouterr().err
    assert {*completion.SHELLS} == {'bash', 'zsh'}

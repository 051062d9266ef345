"""``python -m iouquery_runtime``."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported_files import NAMES, write_model
from image_files import PLAIN, random_image
from PIL import Image

from iouquery_runtime import Detector, command
from iouquery_runtime.results import Result, was_drawn

F_SETPIPE_SZ = 1031  # fcntl's, which Python 3.9 does not name
NAMES_OF_IMAGES = ('a.jpg', 'b.png', 'c.tif')
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: ``model.onnx``, and in ``images`` three images and a text."""
    write_model(tmp_path / 'model.onnx')
    (tmp_path / 'images').mkdir()
    for i, name in enumerate(NAMES_OF_IMAGES):
        random_image(300, 200 + 10 * i, seed=i, blur=30).save(tmp_path / 'images' / name)
    (tmp_path / 'images' / 'notes.txt').write_text('no image')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def test_a_folder_is_drawn_and_written_down(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each image, a figure for each, and a file with all detections; what was detected is the detector's."""
    arguments = ['model.onnx', 'images', 'images/a.jpg', '--out', 'found', '--json', 'found.json', '--score-thr', '0.6']
    assert command.main(arguments) == 0
    output = capsys.readouterr()
    assert output.err == '' and len(output.out.splitlines()) == 3
    assert files(folder / 'found') == ['a.jpg', 'b.png', 'c.tif.png']
    assert all(was_drawn(path) for path in (folder / 'found').iterdir())
    content = json.loads((folder / 'found.json').read_text(encoding='utf-8'))
    assert content['model'] == 'model.onnx'
    results = Detector('model.onnx')([f'images/{name}' for name in ('a.jpg', 'b.png', 'c.tif')], score_thr=0.6)
    assert content['images'] == [result.to_dict() for result in results]
    for line, result in zip(output.out.splitlines(), results):
        counts = [f'{result.names.count(name)} {name}' for name in NAMES if name in result.names]
        assert line.startswith(f'{result.path} {result.width}x{result.height}: ')
        assert sorted(line.split(': ')[1].split(', ')) == sorted(counts) and counts
    figure = np.asarray(Image.open(folder / 'found' / 'b.png'))
    results[1].draw(folder / 'again.png')
    np.testing.assert_array_equal(figure, np.asarray(Image.open(folder / 'again.png')))


def test_without_a_threshold_the_files_own_holds_or_one_that_can_be_looked_at(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(folder / 'own.onnx', format_changes={'test_cfg': {'score_thr': 0.99}})
    for model, threshold in (('model.onnx', 0.3), ('own.onnx', 0.99)):
        assert command.main([model, 'images', '--json', f'{model}.json']) == 0
        content = json.loads((folder / f'{model}.json').read_text(encoding='utf-8'))
        results = Detector(model)([image['path'] for image in content['images']], score_thr=threshold)
        assert content['images'] == [result.to_dict() for result in results]
    assert 'images/a.jpg 300x200: nothing\n' in capsys.readouterr().out


def test_the_size_can_be_named(folder: Path) -> None:
    write_model(folder / 'any.onnx', size=None)
    assert command.main(['any.onnx', 'images', '--json', 'f.json', '--image-size', '96', '160']) == 0
    actual = json.loads((folder / 'f.json').read_text(encoding='utf-8'))['images']
    detector = Detector('any.onnx', image_size=(96, 160))
    assert actual == [detector(image['path'], score_thr=0.3).to_dict() for image in actual]


def test_called_again_it_overwrites_what_is_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['model.onnx', 'images', '--out', 'found', '--json', 'found.json', '--score-thr']
    assert command.main([*arguments, '0']) == 0
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    assert command.main([*arguments, '0']) == 0
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before
    assert command.main([*arguments, '0.999']) == 0
    after = {name: (folder / name).read_bytes() for name in files(folder)}
    changed = {name for name, content in after.items() if content != before[name]}
    assert changed == {'found.json', 'found/a.jpg', 'found/b.png', 'found/c.tif.png'} and before.keys() == after.keys()


def test_folders_below_a_folder_are_kept_apart_and_figures_are_no_images(folder: Path) -> None:
    for name in ('one', 'two'):
        shutil.copytree(folder / 'images', folder / 'nested' / name)
    before = files(folder / 'nested')
    for _ in range(2):
        assert command.main(['model.onnx', 'nested', '--out', 'nested/found', '--score-thr', '0']) == 0
        drawn = {name for name in files(folder / 'nested') if name not in before}
        assert drawn == {f'found/{sub}/{name}' for sub in ('one', 'two') for name in ('a.jpg', 'b.png', 'c.tif.png')}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--out', 'images'], 'images/a.jpg would be drawn over itself; name another folder with --out'),
        (['--out', 'copies'], 'copies/a.jpg exists and was not drawn by this command; name another folder with --out'),
        (['--json', 'images/notes.txt'], 'images/notes.txt exists and was not written by this command; name another'),
        (['--json', '/dev/zero'], '/dev/zero exists and was not written by this command'),
        (['--json', 'other.json'], 'other.json exists and was not written by this command'),
        (
            ['copies/a.jpg', '--out', 'found'],
            'images/a.jpg and copies/a.jpg would both be drawn as found/a.jpg; detect',
        ),
        (['none.jpg'], 'there is no file or folder none.jpg'),
        (['empty'], 'the folder empty has no images (.bmp, .gif, '),
        (['--score-thr', '1.5'], '--score-thr 1.5: name a number in [0, 1)'),
        (['--score-thr', 'nan'], '--score-thr nan: name a number in [0, 1)'),
        (['--image-size', '96', '96'], 'model.onnx takes images of 64x64 (height x width) alone, got 96x96; leave'),
        (['--threads', '0'], 'threads must be at least 1 and a whole number, got 0'),
        (['--out', 'model.onnx/deeper'], 'the folder model.onnx/deeper cannot be made: '),
    ],
)
def test_bad_input_is_a_sentence_and_nothing_is_done(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / 'images', folder / 'copies')
    (folder / 'empty').mkdir()
    (folder / 'other.json').write_text('{"written_by": "somebody"}')
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    assert command.main(['model.onnx', 'images', *arguments]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f'error: {message}') and output.err.count('\n') == 1 and output.out == ''
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


def test_an_image_that_cannot_be_read_does_not_keep_the_others_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / 'images' / 'b.png').write_bytes(PLAIN['png'][:-30])
    assert command.main(['model.onnx', 'images', '--out', 'found', '--json', 'found.json']) == 2
    output = capsys.readouterr()
    reason = 'images/b.png: the file is cut short: the PNG has no end; repair the file, or leave it out'
    assert output.err == f'error: {reason}\n'
    assert re.findall(r'^images/(\S+)', output.out, re.MULTILINE) == ['a.jpg', 'c.tif']
    assert files(folder / 'found') == ['a.jpg', 'c.tif.png']
    content = json.loads((folder / 'found.json').read_text(encoding='utf-8'))
    assert [image.get('error') for image in content['images']] == [None, reason, None]


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_a_signal_ends_it_and_leaves_whole_files(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the second figure is being written."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where the tests run in the background
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    save, written = Image.Image.save, []

    def interrupted(self: Image.Image, path: Path, *arguments: object, **options: object) -> None:
        save(self, path, *arguments, **options)  # type: ignore[arg-type]
        written.append(path)
        if len(written) == 2:
            os.kill(os.getpid(), signal.Signals[name])

    monkeypatch.setattr(Image.Image, 'save', interrupted)
    arguments = ['model.onnx', 'images', '--out', 'found', '--json', 'found.json']
    assert command.main(arguments) == 128 + signal.Signals[name]
    assert capsys.readouterr().err == f'stopped by {name}; every file written so far is whole\n'
    assert files(folder / 'found') == ['a.jpg'] and was_drawn(folder / 'found' / 'a.jpg')
    assert not (folder / 'found.json').exists()
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_as_a_program(folder: Path) -> None:
    """A model that is none ends in one sentence; SIGTERM ends a program that waits for the reader of its lines."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONIOENCODING': 'ascii'}
    program = [sys.executable, '-m', 'iouquery_runtime']

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command_line = [*program, *arguments]
        return subprocess.run(command_line, capture_output=True, text=True, env=environment, timeout=60, check=False)

    done = run('images/a.jpg', 'images')
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('error: images/a.jpg is neither .onnx nor .xml') and done.stderr.count('\n') == 1
    done = run('model.onnx', 'images/a.jpg', '--score-thr', '0')
    assert done.returncode == 0 and re.fullmatch(
        r'images/a.jpg 300x200: (\d (person|dog|Fahrrad \?)(, )?)+\n', done.stdout
    )
    done = run('model.onnx', 'images', '--json', '-')
    assert done.returncode == 0 and re.findall(r'^images/(\S+)', done.stderr, re.MULTILINE) == [*NAMES_OF_IMAGES]
    assert [image['path'] for image in json.loads(done.stdout)['images']] == [f'images/{x}' for x in NAMES_OF_IMAGES]
    assert run('model.onnx', 'images', '--json', '/dev/stdout').stdout == done.stdout
    done = run()
    assert done.returncode == 2 and 'usage: python -m iouquery_runtime' in done.stderr
    for i in range(200):  # more lines than the smallest pipe takes, so that the program cannot end by itself
        shutil.copy('images/a.jpg', f'images/{i}_{"x" * 40}.jpg')
    with subprocess.Popen(
        [*program, 'model.onnx', 'images', '--json', 'found.json'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        fcntl.fcntl(process.stdout, F_SETPIPE_SZ, 4096)
        assert process.stdout.readline().startswith('images/')
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert output == 'stopped by SIGTERM; every file written so far is whole\n'
    assert not (folder / 'found.json').exists()


def test_a_reader_that_goes_away_and_ctrl_c_at_the_start_end_it_without_a_traceback(folder: Path) -> None:
    """``| head -1`` as a pipe that nobody reads; Ctrl-C as a NumPy that is stopped while it is imported."""
    (folder / 'stopped' / 'numpy').mkdir(parents=True)
    (folder / 'stopped' / 'numpy' / '__init__.py').write_text(
        'import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n'
    )
    reading, writing = os.pipe()
    os.close(reading)
    for path, status, message in ((ROOT, 141, ''), (folder / 'stopped', 130, 'stopped by SIGINT\n')):
        done = subprocess.run(
            [sys.executable, '-m', 'iouquery_runtime', 'model.onnx', 'images', '--json', 'found.json'],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': f'{path}{os.pathsep}{ROOT}'},
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (status, message)
        assert not (folder / 'found.json').exists()
    os.close(writing)


def test_a_folder_that_may_not_be_read_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, 'Permission denied', str(path))

    monkeypatch.setattr(Path, 'iterdir', refuse)  # what a folder of mode 000 does, but not to root
    assert command.main(['model.onnx', 'images']) == 2
    assert capsys.readouterr() == ('', 'error: images cannot be read or written: Permission denied\n')


def test_the_summary_counts_classes_the_most_numerous_first() -> None:
    result = Result.failed('')
    object.__setattr__(result, 'names', ('dog', 'person', 'person'))
    assert command._summary(result) == '2 person, 1 dog'
    assert command._summary(Result.failed('')) == 'nothing'

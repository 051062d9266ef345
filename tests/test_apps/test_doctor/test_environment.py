"""The doctor: what it says about made-up environments, and that it never ends in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.doctor import command
from mmdet_iouquery.apps.doctor import environment as doctor
from mmdet_iouquery.apps.doctor.environment import Attention, Facts, Torch
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits

ROOT = Path(__file__).resolve().parents[3]
PLAIN = {'numpy': '2.2.6', 'pycocotools': '2.0.11', 'scipy': '1.17.1', 'opencv-python': '4.12.0.88'}
ONEDL = {'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6', 'onedl-mmdetection': '3.5.1'}
OPENMMLAB = {'mmengine': '0.10.7', 'mmcv-lite': '2.1.0', 'mmdet': '3.3.0'}
GOOD = Facts(
    python='3.11.7',
    system='Linux',
    cores=16,
    installed={**PLAIN, **ONEDL, 'torch': '2.13.0+cu130'},
    absent=frozenset({'torchvision', 'pkg_resources'}),
    ops='compiled',
    torch=Torch(cuda_build='13.0', cuda_available=True, device='A device', threads=8),
    attention=Attention('triton'),
)


def row_of(facts: Facts, name: str) -> doctor.Row:
    [row] = [row for row in doctor.examine(facts).rows if row.name == name]
    return row


def errors_of(facts: Facts) -> list[tuple[str, str]]:
    return [(item.text, item.remedy) for item in doctor.examine(facts).findings if item.level == 'error']


def notes_of(facts: Facts) -> list[tuple[str, str]]:
    return [(item.text, item.remedy) for item in doctor.examine(facts).findings if item.level == 'note']


def test_a_good_environment_has_no_findings_and_names_what_it_found() -> None:
    report = doctor.examine(GOOD)
    assert report.can_train and report.findings == []
    assert row_of(GOOD, 'torch') == ('packages', 'torch', '2.13.0+cu130', 'CUDA 13.0, A device, 8 threads; tested')
    assert row_of(GOOD, 'family').value == 'onedl'
    assert row_of(GOOD, 'onedl-mmdetection') == ('packages', 'onedl-mmdetection', '3.5.1', 'tested')
    assert row_of(GOOD, 'mmcv operators').value == 'compiled'
    assert row_of(GOOD, 'cv2').value == 'opencv-python 4.12.0.88'
    assert row_of(GOOD, 'safetensors').value == 'not installed'
    assert row_of(GOOD, 'deformable attention') == ('packages', 'deformable attention', 'triton', '')
    assert report.slow == []


def test_a_version_that_is_allowed_but_untested_is_told_apart() -> None:
    installed = {**GOOD.installed, 'onedl-mmdetection': '3.4.2', 'torch': '2.9.0'}
    facts = replace(GOOD, installed=installed)
    assert doctor.examine(facts).can_train
    assert row_of(facts, 'onedl-mmdetection').note == 'supported; tested: 3.5.1'
    assert row_of(facts, 'torch').note.endswith('tested: 2.13.0')


def test_a_version_out_of_range_stops_training() -> None:
    facts = replace(GOOD, installed={**PLAIN, **OPENMMLAB, 'mmdet': '3.0.0', 'torch': '2.13.0'})
    assert not doctor.examine(facts).can_train
    assert row_of(facts, 'mmdet').note == 'not supported: needs >=3.2,<4.0'
    assert errors_of(facts) == [
        ('mmdet 3.0.0 is outside the supported range >=3.2,<4.0', 'python -m pip install mmdet==3.3.0')
    ]


@pytest.mark.parametrize(
    ('change', 'text', 'remedy'),
    [
        (dict(absent=frozenset({'torch'}), torch=None), 'torch is not installed', 'python -m pip install torch'),
        (
            dict(installed={**GOOD.installed, 'torch': '2.5.1+cu121'}),
            "torch 2.5.1+cu121 is older than 2.6, and cannot read a training's checkpoints safely",
            'python -m pip install "torch>=2.6"',
        ),
        (
            dict(failures={'torch': 'OSError: libcudart.so.13'}, torch=None),
            'torch does not import: OSError: libcudart.so.13',
            'python -m pip install --force-reinstall torch',
        ),
        (
            dict(absent=frozenset({'pycocotools'})),
            'pycocotools is not installed',
            'python -m pip install pycocotools',
        ),
        (
            dict(failures={'cv2': 'ImportError: libGL.so.1: cannot open shared object file'}),
            'cv2 does not import: ImportError: libGL.so.1',
            'python -m pip uninstall -y opencv-python && python -m pip install opencv-python-headless',
        ),
        (dict(python='3.9.18'), 'the onedl packages need Python >= 3.10', 'make setup PYTHON='),
        (
            dict(absent=frozenset({'distutils'})),
            'mmengine needs distutils to start a training',
            'python -m pip install "setuptools<82"',
        ),
        (
            dict(failures={'mmcv._ext': 'undefined symbol'}, ops='broken'),
            'mmcv._ext does not import: undefined symbol',
            'python -m pip install --no-build-isolation',
        ),
        (dict(absent=frozenset({'packaging'})), 'packaging is not installed', 'python -m pip install packaging'),
    ],
)
def test_each_error_comes_with_its_line(change: dict[str, object], text: str, remedy: str) -> None:
    [(found_text, found_remedy)] = errors_of(replace(GOOD, **change))  # type: ignore[arg-type]
    assert found_text.startswith(text)
    assert found_remedy.startswith(remedy)


def test_nothing_installed_names_everything_that_is_missing() -> None:
    absent = frozenset({'torch', 'numpy', 'cv2', 'pycocotools', 'scipy', 'mmengine', 'mmcv', 'mmdet'})
    facts = Facts(python='3.11.7', system='Linux', cores=2, installed={}, absent=absent, ops='no mmcv')
    texts = [text for text, _ in errors_of(facts)]
    assert texts == [
        'torch is not installed',
        'mmengine, mmcv and mmdet are not installed',
        'numpy is not installed',
        'opencv-python is not installed',
        'pycocotools is not installed',
        'scipy is not installed',
    ]
    assert row_of(facts, 'family').value == 'none found'


def test_two_opencv_wheels_are_a_note_where_their_versions_differ() -> None:
    same = {**GOOD.installed, 'opencv-python-headless': '4.12.0.88'}
    assert not notes_of(replace(GOOD, installed=same))
    [(text, remedy)] = notes_of(replace(GOOD, installed={**same, 'opencv-python-headless': '4.8.0'}))
    assert text.endswith('share one folder, cv2; their versions differ: cv2 may be damaged')
    assert remedy.startswith('python -m pip uninstall -y opencv-python opencv-python-headless && ')


def test_a_broken_torchvision_does_not_stop_training() -> None:
    installed = {**GOOD.installed, 'torchvision': '0.1'}
    failures = {'torchvision': 'RuntimeError: operator torchvision::nms does not exist'}
    facts = replace(GOOD, installed=installed, failures=failures, absent=frozenset())
    assert doctor.examine(facts).can_train
    [(text, remedy)] = notes_of(facts)
    assert 'operator torchvision::nms does not exist' in text
    assert remedy == 'python -m pip uninstall -y torchvision'
    assert row_of(facts, 'torchvision').value == '0.1 (broken)'


def test_pkg_resources_matters_to_openmmlab_only() -> None:
    facts = replace(GOOD, installed={**PLAIN, **OPENMMLAB, 'torch': '2.13.0'})
    [(text, remedy)] = notes_of(facts)
    assert 'pkg_resources' in text and remedy == 'python -m pip install "setuptools<82"'
    assert notes_of(replace(facts, absent=frozenset())) == []


def test_what_will_be_slow_on_a_small_machine() -> None:
    facts = replace(GOOD, cores=2, ops='stand-in', torch=Torch(threads=2))
    slow = doctor.examine(facts).slow
    assert [line.split(':')[0] for line in slow] == [
        'no CUDA (this torch is a CPU build)',
        'mmcv has no compiled operators',
        '2 CPU cores for loading and augmenting images',
    ]
    assert 'bfloat16: this CPU has no instr' in doctor.examine(replace(GOOD, torch=Torch(slow_bfloat16=True))).slow[1]
    driver = doctor.examine(replace(GOOD, torch=Torch(cuda_build='13.0', threads=2))).slow[0]
    assert 'the driver offers no device' in driver


def test_text_shows_errors_before_notes_and_ends_with_the_verdict() -> None:
    installed = {**GOOD.installed, 'opencv-python-headless': '4.11.0.86', 'onedl-mmcv': '1.0'}
    text = doctor.render(doctor.examine(replace(GOOD, installed=installed)))
    assert text.index('  error: onedl-mmcv 1.0') < text.index('  note: opencv-python and')
    assert '    remedy: python -m pip install onedl-mmcv==2.3.6' in text
    assert text.endswith('training cannot run: see the errors above')
    assert doctor.render(doctor.examine(GOOD)).endswith('\ntraining can run')


def test_json_carries_the_same_report() -> None:
    report = doctor.examine(replace(GOOD, python='3.9.1'))
    loaded = json.loads(doctor.to_json(report))
    assert loaded['can_train'] is False
    assert loaded['rows'][0] == dict(section='machine', name='Python', value='3.9.1', note='')
    assert [item['text'] for item in loaded['findings']] == ['the onedl packages need Python >= 3.10']
    assert loaded['slow'] == report.slow


@pytest.mark.parametrize(('facts', 'status'), [(GOOD, 0), (replace(GOOD, absent=frozenset({'torch'})), 1)])
def test_exit_status(
    facts: Facts, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, 'gather', lambda: facts)
    assert command.main(['--json']) == status
    assert json.loads(capsys.readouterr().out)['can_train'] is (status == 0)


def test_a_failing_doctor_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, 'gather', lambda: 1 // 0)
    assert command.main([]) == 1
    assert capsys.readouterr().out.startswith('the doctor itself failed: ZeroDivisionError')


def run_doctor(*options: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, '-m', 'mmdet_iouquery.doctor', '--json']
    environment = {**os.environ, 'PYTHONPATH': str(path) if path else ''}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)


def test_without_any_package_it_still_reports() -> None:
    result = run_doctor('-S')
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    texts = [item['text'] for item in json.loads(result.stdout)['findings']]
    assert texts[:3] == [
        'torch is not installed',
        'packaging is not installed',
        'mmengine, mmcv and mmdet are not installed',
    ]


def test_it_speaks_in_an_environment_that_the_package_refuses(tmp_path: Path) -> None:
    info = tmp_path / 'mmcv_full-1.7.2.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: mmcv-full\nVersion: 1.7.2\n')
    (tmp_path / 'numpy.py').write_text("raise RuntimeError('built for another Python')")
    result = run_doctor(path=tmp_path)
    assert result.returncode == 1, result.stderr
    texts = [item['text'] for item in json.loads(result.stdout)['findings']]
    assert any('mmcv-full' in text for text in texts)
    assert 'numpy does not import: RuntimeError: built for another Python' in texts
    assert 'Traceback' not in result.stderr


def test_this_environment_can_train() -> None:
    result = run_doctor()
    report = json.loads(result.stdout)
    errors = [item for item in report['findings'] if item['level'] == 'error']
    assert (result.returncode, report['can_train'], errors) == (0, True, [])


def run_data_doctor(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, '-m', 'mmdet_iouquery.doctor', 'data', *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_the_data_doctor_looks_at_what_a_config_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a user starts it, on a set with a validation image cut short; see test_data_inspection.py."""
    data = find_coco_set(build_digits(tmp_path / 'digits', num_train=6, num_val=3, image_size=96, progress=False))
    config = tmp_path / 'config.py'
    config.write_text(config_text(data, iters=4, image_size=64))
    good = run_data_doctor(str(config), '--workers', '2', '--json')
    assert good.returncode == 0, good.stderr[-2000:]
    assert [entry['images_looked_at'] for entry in json.loads(good.stdout)['sets']] == [6, 3]

    image = sorted(data.val_images.iterdir())[0]
    image.write_bytes(image.read_bytes()[:-50])
    assert command.main(['data', str(tmp_path), '--workers', '2']) == 1, 'the folder stands for its config'
    assert f'{image.name}: the file is cut short' in capsys.readouterr().out
    assert command.main(['data', str(tmp_path / 'digits')]) == 2
    assert f'the folder {tmp_path / "digits"} has no config, a .py file; name CONFIG' in capsys.readouterr().err


def test_without_any_package_the_data_doctor_sends_to_the_other() -> None:
    result = run_data_doctor('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', options=('-S',))
    assert result.returncode == 2 and 'Traceback' not in result.stderr and result.stdout == ''
    assert '`python -m mmdet_iouquery.doctor` says what is missing' in result.stderr


def test_the_back_end_of_deformable_attention_is_named_and_why_no_other() -> None:
    others = {'triton': 'triton is not installed', 'mmcv': 'mmcv has no compiled operators'}
    facts = replace(GOOD, attention=Attention('grid_sample', others))
    row = row_of(facts, 'deformable attention')
    assert row.value == 'grid_sample'
    assert row.note == 'not triton: triton is not installed; not mmcv: mmcv has no compiled operators'
    assert doctor.examine(facts).slow == [
        'deformable attention is plain PyTorch (grid_sample): python -m pip install triton'
    ]
    here = row_of(doctor.gather(), 'deformable attention')
    assert here.value in ('embedding_bag', 'triton', 'mmcv', 'grid_sample') and f'not {here.value}' not in here.note


@pytest.mark.parametrize(
    ('word', 'message'), [('dta', 'did you mean `doctor data`?'), ('fish', 'it takes `data CONFIG`, `checkpoint FILE`')]
)
def test_a_doctor_that_there_is_not(word: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match='2'):
        command.main([word, 'config.py'])
    assert f'there is no doctor of {word!r}; {message}' in capsys.readouterr().err

"""The frame of ``make gpu``: whatever a part does, the others run, and what it found is kept."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from gpu_checks import carry, frame
from gpu_checks.frame import Part, exit_status, run_parts, summary

CHECKS = Path(__file__).parent / 'gpu_checks'

# Each part first notes a number, and then ends in its own way.
CHILD = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from gpu_checks.frame import SkipError, run_child

def passes(report): report.at_most('error', 0.5, 1.0)
def differs(report):
    report.at_most('error', float('nan'), 1.0)
    report.holds('the moon is square', true=False)
    with report.step('division'): 1 / 0
    with report.step('wheels'): raise SkipError('there are none')
    report.add('after', 'all of it')
def raises(report): raise RuntimeError('CUDA error: out of memory')
def lacks(report): raise SkipError('no such device')
def crashes(report): os.kill(os.getpid(), signal.SIGSEGV)
def hangs(report):
    child = os.fork()
    if child: Path({folder!r}, 'child').write_text(str(child))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)

def begun(report):
    report.add('begun', 1)
    globals()[sys.argv[1]](report)

sys.exit(run_child(begun, Path(sys.argv[2]), float(sys.argv[3])))
"""


def is_running(process: int) -> bool:
    try:
        return Path(f'/proc/{process}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_every_way_for_a_part_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, 'GRACE', 0.2)
    script = tmp_path / 'child.py'
    script.write_text(CHILD.format(tests=str(CHECKS.parent), folder=str(tmp_path)))
    names = ('hangs', 'crashes', 'raises', 'differs', 'lacks', 'passes', 'late')
    limits = dict.fromkeys(names, 30.0) | {'hangs': 6.0, 'late': 0.0}

    def command(name: str, report: Path, limit: float) -> list[str]:
        return [sys.executable, str(script), name, str(report), str(limit)]

    parts = {name: Part(limit, f'what {name}') for name, limit in limits.items()}
    results = run_parts(parts, command, tmp_path / 'out', 100)

    states = {name: result['state'] for name, result in results.items()}
    assert states == {
        'hangs': 'timed out',
        'crashes': 'killed by SIGSEGV',
        'raises': 'failed',
        'differs': 'failed',
        'lacks': 'skipped',
        'passes': 'passed',
        'late': 'not begun',
    }
    assert all(result['found']['begun'] == 1 for name, result in results.items() if name != 'late')
    assert any('in hangs' in line for line in results['hangs']['log']), 'where it stood when its time was up'
    assert not is_running(int((tmp_path / 'child').read_text())), 'what it had started is gone, too'
    assert results['raises']['log'][-1] == 'RuntimeError: CUDA error: out of memory'
    assert results['differs']['failures'] == [
        'error is nan, over 1',
        'not so: the moon is square',
        'division: ZeroDivisionError: division by zero',
    ]
    assert results['differs']['found'] | {'error': 0} == {
        'begun': 1,
        'error': 0,
        'wheels: skipped': 'there are none',
        'after': 'all of it',
    }
    assert results['lacks']['found']['skipped'] == 'no such device'
    assert 'log' not in results['passes'] and results['passes']['failures'] == []
    assert exit_status(results) == 1 and exit_status({name: results[name] for name in ('lacks', 'passes')}) == 0
    assert summary(results).startswith('1 timed out, 1 killed by SIGSEGV, 2 failed, 1 skipped')
    output = capsys.readouterr().out
    assert 'hangs: what hangs (at most 6 s)' in output and 'RuntimeError: CUDA error: out of memory' in output
    assert json.loads((tmp_path / 'out' / 'results.json').read_text())['passes']['state'] == 'passed'


@pytest.mark.skipif(torch.cuda.is_available(), reason='what it says on a machine without CUDA')
def test_it_lists_its_parts_and_refuses_a_machine_without_cuda(tmp_path: Path) -> None:
    def called(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(CHECKS), f'--out={tmp_path / "out"}', *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    listed, refused = called('--list'), called()
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert listed.returncode == 0 and {'kernels', 'steps', 'ddp', 'compile', 'training', 'export', 'all'} <= {*names}
    texts = [(CHECKS / name).read_text() for name in ('parts.py', 'trainings.py')]
    assert all(sum(f'\ndef check_{name}(' in text for text in texts) == 1 for name in names if name != 'all')
    assert refused.returncode == 2 and refused.stderr.count('\n') == 1 and 'no CUDA device' in refused.stderr
    assert not (tmp_path / 'out').exists()


def test_what_a_machine_lacks_is_what_its_list_does_not_name() -> None:
    assert carry.normal('opencv_python==4.12'.partition('==')[0]) == carry.normal('OpenCV-Python-Headless')
    needed = carry.needed('mmdet-iouquery')
    assert {'mmdet-iouquery', 'numpy', 'pycocotools', 'scipy', 'tqdm'} <= {*needed} and 'torch' not in needed


def test_wheels_that_were_brought_along_are_used_without_a_network(tmp_path: Path) -> None:
    wheels, folder = tmp_path / 'wheels', tmp_path / 'site'
    wheels.mkdir()
    with zipfile.ZipFile(wheels / 'brought-1.0-py3-none-any.whl', 'w') as archive:
        archive.writestr('brought.py', 'ALONG = 1\n')
        archive.writestr('brought-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n')
        archive.writestr(
            'brought-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
        )
        archive.writestr('brought-1.0.dist-info/RECORD', '')
    assert carry.unpack(wheels, folder) == str(folder)
    assert (folder / 'brought.py').read_text() == 'ALONG = 1\n'

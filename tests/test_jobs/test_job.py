"""``job.json``, and a folder that is one job's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from iouquery_runtime.errors import InputError, WriteError
from iouquery_runtime.jobs import job as jobs
from iouquery_runtime.jobs.job import FINISHED, LISTING, RUNNING, STOPPED, Job

SETTINGS = dict(model='a.onnx', sha256='ab' * 32, score_thr=None, images='/images', root=None, shard='0/2')


def begun(folder: Path, state: str = RUNNING) -> Job:
    folder.mkdir(exist_ok=True)
    job = Job(folder)
    job.start(SETTINGS, names=['dog'])
    job.update(state=state, images=3)
    return Job(folder)


def test_a_record_says_what_when_and_with_which_versions(tmp_path: Path) -> None:
    job = begun(tmp_path / 'out', LISTING)
    assert job.state == LISTING
    job.update(state=FINISHED, errors=1)
    record = json.loads((tmp_path / 'out' / 'job.json').read_text(encoding='utf-8'))
    assert record == Job(tmp_path / 'out').record
    assert record['settings'] == SETTINGS and record['names'] == ['dog'] and record['images'] == 3
    assert record['versions']['Python'] == '.'.join(map(str, sys.version_info[:3])) and 'numpy' in record['versions']
    assert record['started'] <= record['finished']


def test_a_new_folder_an_empty_one_and_the_same_job(tmp_path: Path) -> None:
    Job(tmp_path / 'new').check(SETTINGS, resume=False)
    Job(tmp_path).check(SETTINGS, resume=True)
    begun(tmp_path / 'listing', LISTING).check(SETTINGS, resume=False)
    begun(tmp_path / 'running').check(SETTINGS, resume=True)
    begun(tmp_path / 'stopped', STOPPED).check(SETTINGS, resume=True)
    begun(tmp_path / 'finished', FINISHED).check(SETTINGS, resume=False)
    for name in ('running', 'stopped'):
        with pytest.raises(InputError, match=f'{name} holds this job, unfinished; --resume does what is missing'):
            Job(tmp_path / name).check(SETTINGS, resume=False)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model': 'b.onnx'}, 'the file of the model was "a.onnx", and now is "b.onnx"'),
        ({'sha256': 'cd' * 32}, r'SHA-256 was "abababababababab\.\.\.", and now is "cdcdcdcdcdcdcdcd\.\.\."'),
        ({'score_thr': 0.5}, '--score-thr was not given, and now is 0.5'),
        (
            {'shard': '1/2', 'root': '/r'},
            '--root was not given, and now is "/r"; --shard was "0/2", and now is "1/2"',
        ),
        ({'dtype': 'float16'}, '--dtype was not given, and now is "float16"'),
    ],
)
@pytest.mark.parametrize('state', [LISTING, RUNNING, FINISHED])
def test_another_job_is_refused_with_old_and_new_value(tmp_path: Path, change: dict, message: str, state: str) -> None:
    job = begun(tmp_path / 'out', state)
    for resume in (False, True):
        with pytest.raises(InputError, match=f'holds another job: .*{message}; name another folder with --out'):
            job.check({**SETTINGS, **change}, resume)


def test_folders_that_are_no_jobs(tmp_path: Path) -> None:
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'a.txt').touch()
    with pytest.raises(InputError, match=r'holds other files \(a.txt\); name a folder of its own'):
        Job(tmp_path / 'other').check(SETTINGS, resume=True)
    with pytest.raises(InputError, match=r'a.txt is a file'):
        Job(tmp_path / 'other' / 'a.txt').check(SETTINGS, resume=True)
    for text, message in (
        ('{', 'cannot be read'),
        ('{"a": 1}', 'was written by another program'),
        ('[]', 'another program'),
    ):
        (tmp_path / 'job.json').write_text(text)
        with pytest.raises(InputError, match=message):
            Job(tmp_path)


HOLDING = """
import sys, time
from pathlib import Path
from iouquery_runtime.jobs.job import Job
with Job(Path(sys.argv[1])).claimed():
    print('inside', flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == 'win32', reason='no locks of this kind')
def test_two_processes_do_not_write_to_one_folder(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, '-c', HOLDING, str(tmp_path / 'out')]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as other:
        assert other.stdout is not None and other.stdout.readline() == 'inside\n'
        try:
            with (
                pytest.raises(InputError, match=r'another process writes to .*out at this moment'),
                Job(tmp_path / 'out').claimed(),
            ):
                pass
        finally:
            other.kill()
    with Job(tmp_path / 'out').claimed():
        pass


def test_a_folder_made_for_nothing_is_gone(tmp_path: Path) -> None:
    with Job(tmp_path / 'a' / 'b').claimed():
        assert (tmp_path / 'a' / 'b').is_dir()
    assert not (tmp_path / 'a' / 'b').exists()
    job = Job(tmp_path / 'c')
    with job.claimed():
        job.start(SETTINGS)
        (tmp_path / 'c' / '.job.json.tmp').touch()  # of a write that a signal ended
        job.drop()
    assert not (tmp_path / 'c').exists()
    begun(tmp_path / 'd')
    with Job(tmp_path / 'd').claimed():
        pass
    assert Job(tmp_path / 'd').state == RUNNING


def test_a_record_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = begun(tmp_path)
    before = (tmp_path / 'job.json').read_bytes()

    def full(_: int) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(jobs.os, 'fsync', full)
    with pytest.raises(
        WriteError, match=r'job.json cannot be written: No space left on device; .* go on with --resume'
    ):
        job.update(state=FINISHED)
    assert (tmp_path / 'job.json').read_bytes() == before and job.state == RUNNING
    assert os.listdir(tmp_path)

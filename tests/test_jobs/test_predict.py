"""Whole jobs on a cluster of two nodes: the same rows whatever dies, each once, and what is whole is not done again."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from counted import Calls, CountedOpener, make_images

from iouquery_runtime.errors import InputError, WriteError
from iouquery_runtime.jobs import command

ray = pytest.importorskip('ray')
pytest.importorskip('onnxruntime')
engine = pytest.importorskip('iouquery_runtime.jobs.engine')
parts = pytest.importorskip('iouquery_runtime.jobs.parts')
predict = pytest.importorskip('iouquery_runtime.jobs.predict')
write_model = pytest.importorskip('exported_files').write_model
job_rows = pytest.importorskip('job_rows')
expected, rows, same = job_rows.expected, job_rows.rows, job_rows.same
Job, Request = predict.Job, predict.Request
ROOT = Path(__file__).resolve().parents[2]
SEARCHED = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
BATCH = 4


@pytest.fixture(scope='module')
def address() -> Iterator[str]:
    """A cluster of two nodes of two CPUs each."""
    from ray.cluster_utils import Cluster

    engine.load_ray()
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = SEARCHED  # of the workers, which unpickle what these tests bring
    node = dict(num_cpus=2, object_store_memory=engine._STORE)
    with engine._no_stderr():
        cluster = Cluster(initialize_head=True, head_node_args={**node, 'include_dashboard': False})
        cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()
    os.environ.pop('PYTHONPATH') if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp('model') / 'model.onnx')


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('images')
    make_images(folder, 60)
    return folder


@pytest.fixture
def job(address: str, model: Path, images: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs a job of those images in this process, by one worker, into ``out``; calls are noted in ``calls``."""

    def run(seconds: float = 0.0, **changes: Any) -> int:
        size = engine.Size(workers=1, batch_size=BATCH)
        request = Request(str(images), tmp_path / 'out', size=size, address=address, part_rows=16)
        opener = CountedOpener(model, tmp_path / 'calls', seconds)
        return predict.predict(dataclasses.replace(request, **changes), opener)

    return run


@pytest.fixture(scope='module')
def undisturbed(model: Path, images: Path) -> list[dict[str, Any]]:
    return expected(model, images)


def test_two_nodes_give_the_rows_of_a_plain_loop_without_torch(
    job: Callable[..., int], tmp_path: Path, undisturbed: list, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each image is read once, by workers on both nodes, as three do not fit on one, that have loaded neither torch nor
    mmdet. A second call has nothing to do, and writes what else is asked for."""
    assert job(0.1, size=engine.Size(workers=3, batch_size=BATCH)) == 0
    same(rows(tmp_path / 'out'), undisturbed)
    calls = Calls(tmp_path / 'calls')
    assert calls.by_image == {f'{i:05d}.png': 1 for i in range(60)}
    assert calls.loaded == {'light'} and len(calls.workers) == 3
    record = Job(tmp_path / 'out').record
    assert (record['state'], record['images'], record['errors']) == ('finished', 60, 0)
    assert all(len(table) < 16 + BATCH for table in parts.part_tables(tmp_path / 'out' / 'parts'))
    capsys.readouterr()
    assert job(formats=('parquet', 'coco')) == 0
    assert 'was finished before' in capsys.readouterr().out
    assert len(Calls(tmp_path / 'calls').lines) == 60
    content = json.loads((tmp_path / 'out' / 'coco.json').read_text())
    assert [image['id'] for image in content['images']] == [*range(1, 61)]
    assert {image['file_name'] for image in content['images']} == {f'{i:05d}.png' for i in range(60)}
    assert len(content['annotations']) == len(json.loads((tmp_path / 'out' / 'results.json').read_text())) == 600


def test_workers_killed_at_random_moments(job: Callable[..., int], tmp_path: Path, undisturbed: list) -> None:
    """A death costs at most what the worker had in hand: its batch, each image of which may be tried twice."""
    random.seed(0)
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while len(killed) < 2 and not ended.is_set():
            time.sleep(0.1 + 0.5 * random.random())
            alive = [pid for pid in Calls(tmp_path / 'calls').workers - {*killed} if Path(f'/proc/{pid}').exists()]
            if alive:
                killed.append(random.choice(alive))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert job(0.1, size=engine.Size(workers=2, batch_size=BATCH)) == 0
    finally:
        ended.set()
        killer.join()
    same(rows(tmp_path / 'out'), undisturbed)
    calls = Calls(tmp_path / 'calls').by_image
    assert len(calls) == 60 and len(killed) == 2
    assert 60 <= sum(calls.values()) <= 60 + BATCH * len(killed)


def test_an_image_that_always_kills_its_worker_is_a_row(
    job: Callable[..., int], model: Path, images: Path, tmp_path: Path
) -> None:
    make_images(tmp_path / 'set', 6, 'deadly.png')
    assert job(images=str(tmp_path / 'set')) == 2
    *others, deadly = rows(tmp_path / 'out')
    assert deadly['error'] == 'the worker died on this image 4 times' and not deadly['boxes']
    (tmp_path / 'set' / 'deadly.png').unlink()
    same(others, expected(model, tmp_path / 'set'))
    assert Calls(tmp_path / 'calls').by_image['deadly.png'] == 4


SLOW = 0.5
"""Seconds an image: the others of 60 take half a minute after the first are there, which a busy machine cannot miss."""


def driver(address: str, model: Path, images: Path, folder: Path, seconds: float) -> subprocess.Popen[str]:
    arguments = [model, images, folder / 'out', folder / 'calls', seconds, address]
    environment = {**os.environ, 'PYTHONPATH': SEARCHED}
    process = [sys.executable, str(ROOT / 'tests' / 'counted.py'), *map(str, arguments)]
    return subprocess.Popen(process, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_rows(process: subprocess.Popen[str], folder: Path, more_than: int) -> None:
    ends = time.monotonic() + 300
    while parts.count_rows(folder / 'out' / 'parts') <= more_than:
        assert process.poll() is None and time.monotonic() < ends, process.communicate()
        time.sleep(0.05)


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='no SIGKILL')
def test_a_driver_that_is_killed_loses_nothing_that_is_in_a_part(
    address: str, model: Path, images: Path, tmp_path: Path, undisturbed: list, job: Callable[..., int]
) -> None:
    """What is in a part is not read again; the next call does the rest."""
    done: set[str] = set()
    for _ in range(2):
        with driver(address, model, images, tmp_path, SLOW) as process:
            wait_for_rows(process, tmp_path, len(done))
            process.kill()
        before = Calls(tmp_path / 'calls').by_image
        now = {Path(row['path']).name for row in rows(tmp_path / 'out')}
        assert done < now and len(now) < 60
        done = now
    with pytest.raises(InputError, match='holds this job, unfinished; --resume does what is missing'):
        job()
    at_the_kill = Calls(tmp_path / 'calls').by_image
    assert job(resume=True) == 0
    same(rows(tmp_path / 'out'), undisturbed)
    calls = Calls(tmp_path / 'calls').by_image
    assert {name for name in done if calls[name] != before[name]} == set()
    assert sum(calls.values()) - sum(at_the_kill.values()) == 60 - len(done)


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_a_sentence_with_the_rows_in_hand(
    address: str, model: Path, images: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    with driver(address, model, images, tmp_path, SLOW) as process:
        wait_for_rows(process, tmp_path, 0)
        process.send_signal(signum)
        output = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signum
    done = len(rows(tmp_path / 'out'))
    last = output.replace('\r', '\n').splitlines()[-1]
    assert last == f'stopped by {signum.name}; {done} of 60 images are done, and --resume does the others'
    assert 'Traceback' not in output and 0 < done < 60
    assert Job(tmp_path / 'out').state == 'stopped'


def test_sigterm_while_ray_starts_ends_it_in_a_sentence_and_leaves_nothing(
    model: Path, images: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, 'PYTHONPATH': SEARCHED, 'RAY_RUNTIME_ENV_HOOK': 'counted.terminate'}
    line = [sys.executable, '-m', 'iouquery_runtime.jobs', model, '--images', images, '-o', 'out', '--workers', '1']
    ended = subprocess.run(
        [*map(str, line)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert (ended.returncode, ended.stdout) == (143, ''), ended.stderr
    assert ended.stderr == 'stopped by SIGTERM; nothing was detected yet\n'
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize('swallowed', [True, False])
def test_what_was_to_be_done_on_sigterm_is_done_when_ray_gives_it_back(swallowed: bool) -> None:
    came: list[int] = []

    def before(signum: int, _frame: object) -> None:
        came.append(signum)

    outside = signal.signal(signal.SIGTERM, before)
    try:
        expected = contextlib.nullcontext() if swallowed else pytest.raises(SystemExit)
        with expected, engine._own_signals():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
            with contextlib.suppress(SystemExit if swallowed else KeyError):
                signal.raise_signal(signal.SIGTERM)
            assert not came
        assert came == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is before
        with engine._own_signals():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert came == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, outside)


def test_a_folder_that_has_grown_is_refused_and_unreadable_images_are_tried_again(
    job: Callable[..., int], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a job that is finished; a pattern takes in no file of the job's own folder."""
    paths = make_images(tmp_path / 'set', 6)
    good = paths[3].read_bytes()
    paths[3].write_bytes(b'no image')
    settings: dict[str, Any] = dict(images=f'{tmp_path}/*/*', formats=('parquet', 'coco'))
    assert job(**settings) == 2
    assert '6 images, of which 1 could not be read; --resume tries again' in capsys.readouterr().out
    assert job(**settings) == 2
    assert 'out was finished before; nothing to detect' in capsys.readouterr().out
    assert Calls(tmp_path / 'calls').by_image == {f'{i:05d}.png': 1 for i in range(6)}

    make_images(tmp_path / 'set', 0, 'new.png')
    for resume in (False, True):
        message = r'out holds a job of other images: it began with 6, and there are 7 now \(.*/new.png is new\); name'
        with pytest.raises(InputError, match=message):
            job(**settings, resume=resume)
    (tmp_path / 'set' / 'new.png').unlink()

    assert job(**settings, resume=True) == 2
    paths[3].write_bytes(good)
    assert json.loads((tmp_path / 'out' / 'coco.json').read_text())['info']['images_that_could_not_be_read'] == 1
    assert job(**settings, resume=True) == 0
    assert '6 images, of which 0 could not be read\n' in capsys.readouterr().out
    same(rows(tmp_path / 'out'), expected(model, tmp_path / 'set'))
    assert Calls(tmp_path / 'calls').by_image == {f'{i:05d}.png': 3 if i == 3 else 1 for i in range(6)}
    assert len(json.loads((tmp_path / 'out' / 'coco.json').read_text())['images']) == 6
    paths[5].unlink()
    with pytest.raises(InputError, match=r'there are 5 now \(.*/00005.png is gone\); name another folder'):
        job(**settings)


def test_a_full_disk_ends_it_in_a_sentence_and_it_resumes(
    job: Callable[..., int], tmp_path: Path, undisturbed: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = parts.parquet.write_table, []

    def until_full(table: Any, file: Any, **options: Any) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, 'No space left on device')
        written.append(len(table))
        write(table, file, **options)

    with monkeypatch.context() as patch:
        patch.setattr(parts.parquet, 'write_table', until_full)
        patch.setattr(predict, 'write_manifest', lambda *given: _unpatched(write, *given))
        with pytest.raises(WriteError, match=r'000002.parquet cannot be written: No space left on device; .*--resume'):
            job()
    assert len(rows(tmp_path / 'out')) == sum(written) < 60
    assert job(resume=True) == 0
    same(rows(tmp_path / 'out'), undisturbed)


def _unpatched(write: Any, *given: Any) -> Any:
    from iouquery_runtime.jobs.manifest import write_manifest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.parquet, 'write_table', write)
        return write_manifest(*given)


def test_the_first_error_stops_it_where_that_is_asked(job: Callable[..., int], tmp_path: Path) -> None:
    make_images(tmp_path / 'set', 12)
    (tmp_path / 'set' / '00003.png').write_bytes(b'no image')
    with pytest.raises(InputError, match=r'00003.png is not an image .*; --resume does the others'):
        job(images=str(tmp_path / 'set'), on_error='stop')
    assert [row['error'] is None for row in rows(tmp_path / 'out')].count(False) == 1
    assert job(images=str(tmp_path / 'set'), on_error='stop', resume=True) == 2
    assert len(rows(tmp_path / 'out')) == 12


def test_reading_and_detecting_in_two_stages(
    job: Callable[..., int], tmp_path: Path, undisturbed: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for GPUs, which pixels travel to: tried without one."""
    monkeypatch.setattr(engine, '_is_staged', lambda size: True)
    assert job() == 0
    same(rows(tmp_path / 'out'), undisturbed)
    assert Calls(tmp_path / 'calls').by_image == {f'{i:05d}.png': 1 for i in range(60)}


def test_rounds_bound_what_ray_keeps(
    job: Callable[..., int], tmp_path: Path, undisturbed: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 5 batches, 20 images, here: three rounds for 60 in files of 10."""
    monkeypatch.setattr(engine, 'BLOCKS', 5)
    monkeypatch.setattr('iouquery_runtime.jobs.manifest.ROWS', 10)
    files, one_round = [], engine._round

    def counted_round(refs: list[Any], *given: Any) -> Iterator[Any]:
        files.append(len(refs))
        return one_round(refs, *given)

    monkeypatch.setattr(engine, '_round', counted_round)
    assert job() == 0
    assert files == [2, 2, 2]
    same(rows(tmp_path / 'out'), undisturbed)


def test_a_model_that_does_not_open_in_the_workers_is_said_in_a_sentence(
    job: Callable[..., int], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_model(tmp_path / 'own.onnx')
    opener = CountedOpener(other, tmp_path / 'calls')
    monkeypatch.setattr(sys.modules[__name__], 'CountedOpener', lambda *_: opener)
    write_model(other, format_changes={'num_queries': '17'})
    with pytest.raises(InputError, match=r'own.onnx has changed, or is another file on this machine'):
        job()
    assert not parts.part_files(tmp_path / 'out' / 'parts')


def test_what_a_cluster_has_not_is_refused(job: Callable[..., int], tmp_path: Path, address: str) -> None:
    with pytest.raises(
        InputError, match=r'--workers 4 of --threads 1, and what reads for them, need 5 CPUs, and the cluster'
    ):
        job(size=engine.Size(workers=4))
    with pytest.raises(InputError, match=r'--workers 1 need a GPU each, and the cluster at .* has none'):
        job(size=engine.Size(workers=1, gpus=1))
    assert not (tmp_path / 'out').exists() and not ray.is_initialized()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--workers', '0'], '--workers 0: name at least 1'),
        (['--threads', '0'], '--threads 0: name at least 1'),
        (['--batch-size', '-1'], '--batch-size -1: name at least 1'),
        (['--format', 'coco,voc'], '--format coco,voc: name parquet or coco, or both with a comma between'),
        (['--shard', '3/3'], '--shard 3/3: name i/n, with i from 0 to n - 1'),
        (['--shard', '0/1000000'], '--shard 0/1000000 of .* has no images; take fewer shards'),
        (['--score-thr', '1'], 'score_thr'),
        (['--address', '127.0.0.1:9'], '--address 127.0.0.1:9: no cluster of Ray answers there'),
        (['--address', 'host'], '--address host: name auto, or HOST:PORT'),
        (['--address', 'ray://a:10001'], 'start the command on a machine of the cluster'),
        (['--images', 'nowhere'], 'there is no file or folder nowhere'),
        (
            ['--images', 'gone.parquet'],
            r'gone.parquet names images that are not there, such as .*/gone.png; say .* --root',
        ),
        (['--images', 'gone.parquet', '--dry-run'], 'gone.parquet names images that are not there'),
        (['--images', 'twice.parquet'], r'ids that stand for more than one image: 1, first 1, of .*a.png and .*b.png'),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    pyarrow = pytest.importorskip('pyarrow')
    monkeypatch.chdir(tmp_path)
    parts.parquet.write_table(pyarrow.table({'id': [1, 2, 1], 'path': ['a.png', 'c.png', 'b.png']}), 'twice.parquet')
    parts.parquet.write_table(pyarrow.table({'path': ['gone.png', 'lost.png']}), 'gone.parquet')
    Path('b.png').touch()
    assert command.main([str(model), '--images', str(images), '-o', 'out', *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == '' and len(printed.err.splitlines()) == 1 and printed.err.startswith('error: ')
    assert re.search(message, printed.err), printed.err
    assert not Path('out').exists() and not ray.is_initialized()


def test_a_server_that_is_no_cluster_is_refused_within_seconds(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    with HTTPServer(('127.0.0.1', 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f'127.0.0.1:{server.server_port}'
        arguments = [str(model), '--images', str(images), '-o', str(tmp_path / 'out'), '--address', where]
        assert command.main(arguments) == 2
        server.shutdown()
    assert f'--address {where}: no cluster of Ray answers there' in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(
    images: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(model), '--images', str(images), '-o', str(tmp_path / 'out'), '--dry-run', '--workers', '3']
    assert command.main([*arguments, '--threads', '2']) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[:2] == ['images: 60', 'workers: 3 of 2 CPUs each, 8 images a batch']
    assert output[2].startswith('memory: about ') and output[3] == f'parts: at least 1, in {tmp_path}/out/parts'
    assert not (tmp_path / 'out').exists()


def test_a_dry_run_reads_some_images(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty, from the first to the last; a root that is wrong is seen."""
    pyarrow = pytest.importorskip('pyarrow')
    make_images(tmp_path / 'set', 100)
    for i in range(50, 100):
        (tmp_path / 'set' / f'{i:05d}.png').unlink()
    manifest = str(tmp_path / 'list.parquet')
    parts.parquet.write_table(pyarrow.table({'path': [f'set/{i:05d}.png' for i in range(100)]}), manifest)
    assert command.main([model.as_posix(), '--images', manifest, '-o', str(tmp_path / 'out'), '--dry-run']) == 0
    output = capsys.readouterr().out.splitlines()
    missing = tmp_path / 'set' / '00052.png'  # of 0, 99/19, 2 * 99/19 and so on the first whole number above 49
    gone = f'there is no file or folder {missing}; correct the path'
    assert output[:2] == ['images: 100', f'unreadable: 10 of 20 looked at, such as: {gone}']


def test_the_command_on_one_machine(images: Path, model: Path, tmp_path: Path, undisturbed: list) -> None:
    """Ray starts and ends with it; nothing of it is left, in folders or on the screen."""
    arguments = ['--images', str(images), '-o', 'out', '--workers', '1', '--batch-size', '16']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'RAY_ADDRESS': '127.0.0.1:9'}
    line = [sys.executable, '-m', 'iouquery_runtime.jobs', str(model), *arguments]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == '60 images, of which 0 could not be read\nrows: out/parts\n'
    assert all(re.match(r' *\d+%\||$', line) for line in done.stderr.replace('\r', '\n').splitlines()), done.stderr
    same(rows(tmp_path / 'out'), undisturbed)
    assert not engine._runtime_folder(tmp_path / 'out').rmdir()


@pytest.mark.parametrize('stop', [KeyboardInterrupt(), predict.Terminated()])
def test_a_signal_within_rays_own_code_is_no_fault_of_the_workers(stop: BaseException) -> None:
    """As where it comes in the middle of a lock, which then says that it is not locked."""
    error = RuntimeError('release unlocked lock')
    error.__context__ = RuntimeError('of a finally')
    error.__context__.__context__ = stop
    assert engine._stop_behind(error) is stop
    assert engine._stop_behind(RuntimeError('of its own')) is None

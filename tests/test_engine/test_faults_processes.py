"""Several processes: data workers that die, signals to a whole job, and ranks that have to stop together."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmdet.registry import HOOKS, TRANSFORMS
from mmengine.config import Config
from mmengine.hooks import Hook
from started_run import Started, ended, errors, in_processes, run_test, run_train, small_config
from toy_run import BATCH_SIZE, EPOCH, CallAt, ToyData, toy_runner

from mmdet_iouquery.checkpoints.files import damage
from mmdet_iouquery.compat import end_data_workers, without_garbage_collection
from mmdet_iouquery.engine import launch
from mmdet_iouquery.engine.launch import run_tool
from mmdet_iouquery.engine.stop_reasons import told_endings
from mmdet_iouquery.errors import CheckpointWriteError, DataWorkerError, TrainingStopped

WORKERS = """
custom_imports = dict(imports=['mmdet_iouquery', 'test_faults_processes'], allow_failed_imports=False)
{loader}.update(num_workers=2, persistent_workers=True)
{loader}['dataset']['pipeline'].insert(3, dict(type='DieAt', folder={folder!r}, call={call}, signum={signum}))
default_hooks['checkpoint'].update(interval=1)
"""
KEEP = """
custom_imports = dict(imports=['mmdet_iouquery', 'test_faults_processes'], allow_failed_imports=False)
train_dataloader.update(num_workers=2, persistent_workers=True)
default_hooks['keep'] = dict(type='KeepBatches')
"""


@TRANSFORMS.register_module()
class DieAt:
    """Ends the worker that loads an image, the n-th one of all processes or a later one."""

    def __init__(self, folder: str, call: int, signum: int) -> None:
        self.folder, self.call, self.signum = Path(folder), call, signum

    def __call__(self, results: dict) -> dict:
        (self.folder / f'call_{os.getpid()}_{len(os.listdir(self.folder))}').touch()
        if torch.utils.data.get_worker_info() and len(os.listdir(self.folder)) >= self.call:
            os.kill(os.getpid(), self.signum)
        return results


def killing(loader: str, folder: Path, call: int) -> str:
    """Lines of a config that has a data worker killed at the n-th image."""
    folder.mkdir()
    return WORKERS.format(loader=loader, folder=str(folder), call=call, signum=int(signal.SIGKILL))


def test_a_data_worker_that_is_killed(tmp_path: Path) -> None:
    """As the kernel does when memory runs out; in the fourth step, after three checkpoints of which two are kept."""
    config = small_config(tmp_path, killing('train_dataloader', tmp_path / 'calls', 30))
    status, output = ended(tmp_path / 'log', run_train, config, '--work-dir', tmp_path / 'Run')
    assert status == 5, output[-3000:]
    (message,) = errors(output)
    # not known where the main process was at its socket just then, as below
    how = "was ended by the signal 'Killed'|exited without an error message"
    assert re.match(f'error: a process that loads data ({how})', message)
    saved = sorted((tmp_path / 'Run').glob('iter_*.pth'))
    assert saved and all(damage(path) is None for path in saved)
    for words in ('ran out of memory', 'num_workers', '/dev/shm', f'is {saved[-1]}; the same command goes on from it'):
        assert words in message
    assert not list((tmp_path / 'Run').glob('*.tmp'))


def test_a_data_worker_that_is_killed_in_a_test(tmp_path: Path) -> None:
    """Called twice; a whole evaluation then has no trace of the others."""
    config = small_config(tmp_path)
    short = ['--work-dir', tmp_path / 'run', '--cfg-options', 'train_cfg.max_iters=1']
    assert ended(tmp_path / 'log', run_train, config, *short)[0] == 0
    with config.open('a') as file:
        file.write(killing('test_dataloader', tmp_path / 'calls', 3))
    tested = [config, tmp_path / 'run' / 'iter_1.pth', '--out', tmp_path / 'results']
    for _ in range(2):
        status, output = ended(tmp_path / 'log', run_test, *tested)
        assert status == 5, output[-3000:]
        (message,) = errors(output)
        assert message.startswith('error: a process that loads data ')
        for words in ('batch_size of test_dataloader', '/dev/shm', 'then the same command starts again'):
            assert words in message
        assert not list(tmp_path.glob('results*'))
    status, output = ended(
        tmp_path / 'log', run_test, *tested, '--cfg-options', 'test_dataloader.dataset.pipeline.3.call=99'
    )
    assert status == 0 and (tmp_path / 'results.metrics.json').is_file(), output[-3000:]


NO_HOOKS = SimpleNamespace(hooks=[])


@HOOKS.register_module()
class KeepBatches(Hook):
    """So that the tensors of every batch stay open."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def after_train_iter(self, *_: Any, data_batch: Any = None, **__: Any) -> None:
        self.batches.append(data_batch)


def train_with_few_files(*arguments: object) -> int:
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    return run_train(*arguments)


@pytest.mark.parametrize('strategy', ['file_descriptor', 'file_system'])
def test_data_workers_that_take_all_open_files(strategy: str, tmp_path: Path) -> None:
    """Pixels, boxes and labels of four images a step: 720 tensors; those that go by name are no open files."""
    more = f'{KEEP}\nsharing_strategy = {strategy!r}\ntrain_cfg.update(max_iters=60, val_interval=1000)\n'
    config = small_config(tmp_path, more)
    status, output = ended(tmp_path / 'log', train_with_few_files, config, '--work-dir', tmp_path / 'run')
    if strategy == 'file_system':
        assert status == 0 and not errors(output), output[-3000:]
        return
    assert status == 5, output[-3000:]
    (message,) = errors(output)
    assert message.startswith('error: a process may open no more files')
    for words in ('ulimit -n', 'num_workers', 'sharing_strategy=file_system', 'start again'):
        assert words in message


@pytest.mark.parametrize(
    'error',
    [
        OSError(errno.EMFILE, 'Too many open files'),
        OSError("Caught OSError in DataLoader worker process 0.\nOSError: [Errno 24] Too many open files: 'a.jpg'\n"),
        RuntimeError('received 0 items of ancdata'),
        CheckpointWriteError('cannot write iter_4.pth: Too many open files; make room there'),
    ],
    ids=['main process', 'worker', 'between them', 'checkpoint'],
)
def test_too_many_open_files_are_named_whoever_meets_them(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(DataWorkerError, match='a process may open no more files'), told_endings(NO_HOOKS, tmp_path):
        raise error


class DyingData(torch.utils.data.Dataset):
    """The second sample kills the worker that loads it, once the first one's batch lies in the queue."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        while index and not self.marker.exists():
            time.sleep(0.01)
        if index:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1)


def next_from_a_dead_worker(marker: Path) -> None:
    """Take a batch whose worker is gone while the system still calls it alive, for a moment made long here."""
    batches = iter(torch.utils.data.DataLoader(DyingData(marker), num_workers=1))
    (worker,) = batches._workers
    while not batches._data_queue._reader.poll(0.01):
        pass
    marker.touch()
    worker.join()
    worker.is_alive = lambda: True
    try:
        next(batches)
    finally:
        del worker.is_alive


def test_a_batch_whose_worker_is_just_being_killed(tmp_path: Path) -> None:
    """torch hands on what the worker's socket says; outside of the main thread no signal tells of the death."""
    refused = pytest.raises(DataWorkerError, match='exited without an error message')
    with ThreadPoolExecutor(1) as pool, refused as error, told_endings(NO_HOOKS, tmp_path):
        pool.submit(next_from_a_dead_worker, tmp_path / 'marker').result()
    assert isinstance(error.value.__cause__, ConnectionError)
    # the same from elsewhere, such as a store of checkpoints, is not a data worker's
    with pytest.raises(ConnectionRefusedError), told_endings(NO_HOOKS, tmp_path):
        raise ConnectionRefusedError


def test_a_death_that_is_told_in_the_midst_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch tells from a signal handler; mmengine, laying out a checkpoint's config, calls whatever comes a mistake."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')

    for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):  # mmengine 0.10 imports it once
        monkeypatch.setattr(f'{module}.FormatCode', interrupted, raising=False)
    refused = pytest.raises(DataWorkerError, match="was ended by the signal 'Killed'")
    with refused as error, told_endings(NO_HOOKS, tmp_path):
        assert Config(dict(model=1)).pretty_text
    assert isinstance(error.value.__cause__, SyntaxError)
    # a mistake with nothing behind it stays what it is
    monkeypatch.undo()
    with pytest.raises(SyntaxError), told_endings(NO_HOOKS, tmp_path):
        raise SyntaxError


def signal_job(signum: int) -> None:
    """Signal every process of this one's group, from outside of it, as a scheduler does."""
    group, child = os.getpgid(0), os.fork()
    if child == 0:
        os.setsid()
        os.killpg(group, signum)
        os._exit(0)
    os.waitpid(child, 0)


STEPS = "default_hooks.update(logger=dict(interval=1))\ndefault_hooks['checkpoint'].update(interval=1000)\n"


def trained(output: str) -> list[int]:
    return [int(step) for step in re.findall(r'Iter\(train\) *\[ *(\d+)/', output)]


def test_the_tool_stops_at_sigterm_and_goes_on_there(tmp_path: Path) -> None:
    """The hook comes with the shipped configs."""
    config = small_config(tmp_path, STEPS)
    arguments = [config, '--work-dir', tmp_path / 'run', '--resume']
    run = Started(tmp_path / 'log', run_train, *arguments)
    run.wait_for(lambda: trained(run.output()))
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.status() == 143, run.output()[-3000:]
    done = trained(run.output())
    saved = tmp_path / 'run' / f'iter_{done[-1]}.pth'
    assert not errors(run.output())
    assert (
        f'stopped by SIGTERM after iteration {done[-1]}; saved {saved}, from which it can be resumed\n' in run.output()
    )
    end = ['--cfg-options', f'train_cfg.max_iters={done[-1] + 2}', 'train_cfg.val_interval=100000']
    status, output = ended(tmp_path / 'log', run_train, *arguments, *end)
    assert status == 0 and f'resuming from {saved}\n' in output, output[-3000:]
    assert done + trained(output) == list(range(1, done[-1] + 3))


class Trained(Hook):
    """Writes a dot for each iteration."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def after_train_iter(self, *_: Any, **__: Any) -> None:
        with self.path.open('a') as file:
            file.write('.')


class SignalledData(ToyData):
    """The first sample of an epoch's last batch has the job signalled, once the training waits for this batch."""

    def __init__(self, trained: Path, signum: int) -> None:
        self.trained, self.signum = trained, signum

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        signalled = self.trained.with_suffix('.signalled')
        if index == BATCH_SIZE * (EPOCH - 1) and not signalled.exists():
            while not self.trained.exists() or self.trained.stat().st_size < EPOCH - 1:
                time.sleep(0.01)
            signalled.touch()
            signal_job(self.signum)
        return super().__getitem__(index)


def job(folder: str, where: str, signum: int, by_epoch: bool, workers_die: bool = False) -> int:
    """A toy training with two data workers, in a group of its own, that signals the group; they may be killed last."""
    runner_folder, data = Path(folder), ToyData()
    hook: Hook = CallAt('before_train_iter', EPOCH + 1, lambda _: signal_job(signum))
    if where == 'worker':
        hook, data = Trained(runner_folder / 'trained'), SignalledData(runner_folder / 'trained', signum)
    runner = toy_runner(
        runner_folder, hook, by_epoch=by_epoch, length=40 if by_epoch else 40 * EPOCH, workers=2, data=data
    )

    def run() -> None:
        try:
            with told_endings(runner, runner_folder):
                runner.train()
        finally:
            for worker in multiprocessing.active_children() if workers_die else ():
                os.kill(worker.pid or 0, signal.SIGKILL)
                os.waitid(os.P_PID, worker.pid or 0, os.WEXITED | os.WNOWAIT)  # torch looks at what is not reaped

    return run_tool(run)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1', 'SIGINT'])
@pytest.mark.parametrize(('where', 'by_epoch'), [('main', True), ('main', False), ('worker', True), ('worker', False)])
def test_a_signal_to_every_process_of_a_job(name: str, where: str, by_epoch: bool, tmp_path: Path) -> None:
    """No iteration is lost, whether data workers outlive it or not."""
    signum = int(signal.Signals[name])
    status, output = ended(tmp_path / 'log', job, str(tmp_path), where, signum, by_epoch)
    assert status == 128 + signum, output[-3000:]
    assert 'Traceback' not in output and f'stopped by {name} after iteration' in output
    (saved,) = tmp_path.glob('*.pth')
    assert f'saved {saved}, from which it can be resumed' in output
    done = EPOCH + 2 if where == 'main' else len((tmp_path / 'trained').read_text())
    assert saved.name == ('epoch_1.pth' if where == 'worker' and by_epoch else f'iter_{done}.pth')
    assert torch.load(saved, weights_only=False)['meta']['iter'] == done
    # mmengine 0.10.7 starts the workers of an iteration-based loop before any hook is called, so they do not outlive it
    assert done in (EPOCH - 1, EPOCH, EPOCH + 2)


def test_data_workers_that_die_after_a_stop_change_nothing(tmp_path: Path) -> None:
    status, output = ended(tmp_path / 'log', job, str(tmp_path), 'main', signal.SIGUSR1, True, True)
    assert status == 128 + signal.SIGUSR1, output[-3000:]
    assert 'Traceback' not in output


def rank(number: int, store: str, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=number, world_size=2)
    signalled = CallAt('before_train_iter', 2, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    runner = toy_runner(Path(folder), *[signalled][:number], by_epoch=False, length=10)
    try:
        runner.train()
        end = 'trained to the end'
    except TrainingStopped as stop:
        end = f'{stop.code} {stop}'
    Path(folder, f'rank_{number}').write_text(f'{runner.iter + 1} {end}')
    torch.distributed.destroy_process_group()


def test_all_ranks_stop_after_the_same_iteration(tmp_path: Path) -> None:
    """Only the second of two gets the signal, and only the first writes."""
    in_processes(rank, str(tmp_path / 'store'), str(tmp_path))
    line = f'3 143 stopped by SIGTERM after iteration 3; saved {tmp_path / "iter_3.pth"}, from which it can be resumed'
    assert [(tmp_path / f'rank_{number}').read_text() for number in range(2)] == [line, line]
    content: dict[str, Any] = torch.load(tmp_path / 'iter_3.pth', weights_only=True)
    assert content['meta']['iter'] == 3


def test_data_workers_end_with_a_training(tmp_path: Path) -> None:
    """Not when garbage is collected: then torch would wait 5 s for each of them."""
    keep = "{0}['num_workers'] = 2\n{0}['persistent_workers'] = True\n"
    loaders = ''.join(map(keep.format, ('train_dataloader', 'val_dataloader')))
    config = small_config(tmp_path, f'{loaders}train_cfg.update(max_iters=2, val_interval=2)\n')
    with without_garbage_collection():
        launch.train([str(config), '--work-dir', str(tmp_path / 'run'), '--no-check'])
        assert multiprocessing.active_children() == []


def test_data_workers_end_with_a_test() -> None:
    loader = torch.utils.data.DataLoader([0, 1], num_workers=1, persistent_workers=True)
    assert [*loader] and multiprocessing.active_children()
    with without_garbage_collection():
        end_data_workers(SimpleNamespace(_train_loop=None, _test_loop=SimpleNamespace(dataloader=loader)))
        assert multiprocessing.active_children() == []

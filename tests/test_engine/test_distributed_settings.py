"""Launch scripts, with a program that writes down how it is called in the interpreter's place, and what configs ask."""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from mmengine.config import Config

from mmdet_iouquery.command_line import common_parser
from mmdet_iouquery.engine import launch, processes
from mmdet_iouquery.engine.processes import build_runner, process_rank
from mmdet_iouquery.errors import InputError

TOOLS = Path(__file__).parents[2] / 'tools'
CONFIG = 'my configs/one.py'
SETTINGS = ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT', 'MAX_RESTARTS')
SETTINGS += ('PYTHON', 'GPUS', 'GPUS_PER_NODE', 'CPUS_PER_TASK', 'SIGNAL', 'SRUN_ARGS')


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A folder with programs that print their arguments, one a line."""
    folder = tmp_path / 'some programs'
    folder.mkdir()
    for name in ('python', 'srun'):
        (folder / name).write_text('#!/bin/sh\nprintf \'%s\\n\' "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def called(script: str, *arguments: str, recorder: Path, **settings: str) -> list[str]:
    done = run(script, *arguments, recorder=recorder, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def run(script: str, *arguments: str, recorder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment['PATH'] = f'{recorder}:{environment["PATH"]}'
    return subprocess.run(
        [str(TOOLS / script), *arguments],
        env={**environment, **settings},
        cwd=recorder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_one_machine(recorder: Path) -> None:
    """Wherever it is called from; any free port, so that two jobs do not meet."""
    expected = ['-m', 'torch.distributed.run', '--standalone', '--max-restarts', '0', '--nproc-per-node', '4']
    train = called('dist_train.sh', CONFIG, '4', '--work-dir', 'a b', '--resume', recorder=recorder)
    last = [CONFIG, '--launcher', 'pytorch', '--work-dir', 'a b', '--resume']
    assert train == [*expected, str(TOOLS / 'train.py'), *last]
    test = called('dist_test.sh', CONFIG, 'a b.pth', '4', '--out', 'c d', recorder=recorder)
    assert test == [*expected, str(TOOLS / 'test.py'), CONFIG, 'a b.pth', '--launcher', 'pytorch', '--out', 'c d']


def test_the_interpreter_can_be_named(recorder: Path) -> None:
    (recorder / 'other python').write_text('#!/bin/sh\necho other\n')
    (recorder / 'other python').chmod(0o755)
    assert called('dist_train.sh', CONFIG, '1', recorder=recorder, PYTHON=str(recorder / 'other python')) == ['other']


def test_several_machines(recorder: Path) -> None:
    """The same settings as those of mmdet's scripts."""
    where = {'NNODES': '2', 'NODE_RANK': '1', 'MASTER_ADDR': 'node7', 'PORT': '1234'}
    arguments = called('dist_train.sh', CONFIG, '8', recorder=recorder, **where)
    assert ' '.join(arguments[2:10]) == '--nnodes 2 --node-rank 1 --master-addr node7 --master-port 1234'
    again = called('dist_train.sh', CONFIG, '8', recorder=recorder, MAX_RESTARTS='3', **where)
    assert ' '.join(again[2:14]) == (
        '--nnodes 2 --rdzv-backend c10d --rdzv-id 1234 --rdzv-conf is_host=false --rdzv-endpoint node7:1234 '
        '--max-restarts 3'
    )


def test_slurm(recorder: Path) -> None:
    settings = {'GPUS': '16', 'CPUS_PER_TASK': '6', 'SRUN_ARGS': '--time 1:00:00  --exclude=node[1-2]'}
    arguments = called('slurm_train.sh', 'gpu', 'my job', CONFIG, '--resume', recorder=recorder, **settings)
    assert arguments[:4] == ['--partition', 'gpu', '--job-name', 'my job']
    assert ' '.join(arguments[4:16]) == (
        '--gres gpu:8 --ntasks 16 --ntasks-per-node 8 --cpus-per-task 6 --kill-on-bad-exit=1 --signal USR1@120 --time'
    )
    last = ['1:00:00', '--exclude=node[1-2]', 'python', '-u', str(TOOLS / 'train.py')]
    assert arguments[16:] == [*last, CONFIG, '--launcher', 'slurm', '--resume']
    arguments = called('slurm_test.sh', 'gpu', 'job', CONFIG, 'a b.pth', recorder=recorder, GPUS='2')
    assert ' '.join(arguments[4:10]) == '--gres gpu:2 --ntasks 2 --ntasks-per-node 2'
    assert arguments[-6:] == ['-u', str(TOOLS / 'test.py'), CONFIG, 'a b.pth', '--launcher', 'slurm']


@pytest.mark.parametrize(
    ('script', 'arguments', 'message'),
    [
        ('dist_train.sh', [CONFIG], 'usage: .*dist_train.sh CONFIG GPUS'),
        ('dist_test.sh', [CONFIG, '2'], 'usage: .*dist_test.sh CONFIG CHECKPOINT GPUS'),
        ('slurm_train.sh', ['gpu', 'job'], 'usage: .*slurm_train.sh PARTITION JOB_NAME CONFIG'),
        ('slurm_test.sh', ['gpu', 'job', CONFIG], 'usage: .*slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT'),
        ('dist_train.sh', ['8', CONFIG], f"error: the number of processes is a whole number from 1, not '{CONFIG}'"),
        ('dist_train.sh', [CONFIG, '0'], "error: the number of processes is a whole number from 1, not '0'"),
    ],
)
def test_what_is_missing_is_said(script: str, arguments: list[str], message: str, recorder: Path) -> None:
    done = run(script, *arguments, recorder=recorder)
    assert done.returncode == 2 and not done.stdout
    assert re.search(message, done.stderr), done.stderr


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in processes._VARIABLES.values():
        for name in (*names, 'MASTER_ADDR', 'MASTER_PORT', 'SLURM_NODELIST'):
            monkeypatch.delenv(name, raising=False)


def test_rank_before_there_is_a_process_group(monkeypatch: pytest.MonkeyPatch, no_launcher: None) -> None:
    """A launcher's variables count only where it is named: a single process may be a task of a Slurm job."""
    for name, value in {'SLURM_PROCID': '3', 'SLURM_LOCALID': '1', 'SLURM_NTASKS': '4'}.items():
        monkeypatch.setenv(name, value)
    assert process_rank('slurm') == 3 and process_rank('none') == 0
    with pytest.raises(InputError, match=r'--launcher pytorch, but RANK, LOCAL_RANK, WORLD_SIZE is not .*dist_train'):
        process_rank('pytorch')
    with pytest.raises(InputError, match=r'--launcher mpi, but OMPI_COMM_WORLD_RANK'):
        process_rank('mpi')


def config(**settings: Any) -> Config:
    return Config({'launcher': 'pytorch', 'env_cfg': {'dist_cfg': {'backend': 'nccl'}}, **settings})


FLEXIBLE = {'runner_type': 'FlexibleRunner'}


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'strategy': {'type': 'FSDPStrategy'}}, "strategy=FSDPStrategy needs runner_type='FlexibleRunner'"),
        ({**FLEXIBLE, 'strategy': {'type': 'FSDPStrategy'}, 'launcher': 'none'}, 'FSDPStrategy needs processes'),
        ({**FLEXIBLE, 'strategy': {'type': 'DeepSpeedStrategy'}}, 'needs the package deepspeed, which is not inst'),
        ({**FLEXIBLE, 'strategy': {'type': 'ColossalAIStrategy'}}, 'needs the package colossalai, which is not'),
        ({**FLEXIBLE, 'strategy': {'type': 'FSDPStrategy'}, 'resume': True}, 'FSDPStrategy cannot resume with torch'),
        ({**FLEXIBLE, 'strategy': {'type': 'FSDPStrategy', 'state_dict_cfg': 'local'}}, 'writes a folder of shards'),
        (
            {**FLEXIBLE, 'strategy': {'type': 'FSDPStrategy'}, 'custom_hooks': [{'type': 'EMAHook'}]},
            'EMAHook cannot save',
        ),
    ],
)
def test_a_strategy_that_cannot_run_is_refused(settings: dict[str, Any], message: str) -> None:
    for name in ('deepspeed', 'colossalai'):
        if name in message and processes.importlib.util.find_spec(name) is not None:
            pytest.skip(f'{name} is installed')
    with pytest.raises(InputError, match=message):
        build_runner(config(**settings))


def test_nccl_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The config's is replaced, the command line's is not."""
    monkeypatch.setattr(processes, 'get_device', lambda: 'cpu')
    arguments = ['rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', '--launcher', 'pytorch']
    arguments += ['--cfg-options', 'env_cfg.dist_cfg.backend=nccl']
    with pytest.raises(InputError, match=r'env_cfg.dist_cfg.backend=nccl needs CUDA devices.*gloo is taken'):
        launch.load_config(common_parser('').parse_args(arguments))


class Taken:
    """In the runner's place: keeps the config."""

    @staticmethod
    def from_cfg(cfg: Config) -> Config:
        assert dist.is_initialized()
        return cfg


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, no_launcher: None) -> Iterator[None]:
    """The one task of a Slurm job, on a machine without CUDA."""
    monkeypatch.setattr(processes, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(processes, 'Runner', Taken)
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    variables = {'SLURM_PROCID': '0', 'SLURM_LOCALID': '0', 'SLURM_NTASKS': '1', 'SLURM_NODELIST': 'localhost'}
    for name, value in {**variables, 'MASTER_PORT': str(port), 'RANK': '', 'LOCAL_RANK': '', 'WORLD_SIZE': ''}.items():
        monkeypatch.setenv(name, value)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'scontrol').write_text('#!/bin/sh\n[ "$*" = "show hostnames localhost" ] && echo localhost\n')
    (tmp_path / 'scontrol').chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')


def test_a_slurm_job_without_cuda_meets_over_gloo(
    alone: None, scontrol: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('MASTER_ADDR', '')
    monkeypatch.delenv('MASTER_ADDR')
    cfg = build_runner(config(launcher='slurm', sync_bn='torch', find_unused_parameters=True))
    assert (dist.get_backend(), dist.get_world_size()) == ('gloo', 1)
    assert os.environ['MASTER_ADDR'] == 'localhost' and os.environ['LOCAL_RANK'] == '0'
    assert cfg.sync_bn is None
    wrapper = {'type': 'MMDistributedDataParallel', 'broadcast_buffers': True, 'find_unused_parameters': True}
    assert cfg.model_wrapper_cfg.to_dict() == {**wrapper, 'device_ids': None}
    output = capsys.readouterr().out
    assert 'over gloo instead of NCCL' in output and "sync_bn='torch' needs CUDA" in output


def test_a_backend_that_is_not_nccl_stays(alone: None, scontrol: None, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = build_runner(config(launcher='slurm', env_cfg={'dist_cfg': {'backend': 'gloo', 'timeout': 60}}))
    assert cfg.env_cfg.dist_cfg.backend == 'gloo' and not capsys.readouterr().out
    assert cfg.model_wrapper_cfg.broadcast_buffers is False


def test_with_cuda_all_is_left_to_mmengine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, 'get_device', lambda: 'cuda')
    seen: list[Config] = []
    monkeypatch.setattr(processes, 'Runner', type('Kept', (), {'from_cfg': staticmethod(seen.append)}))
    before = config(sync_bn='torch')
    build_runner(before)
    assert seen[0].to_dict() == config(sync_bn='torch').to_dict() and not dist.is_initialized()


def test_sync_bn_reaches_flexible_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for it in the strategy alone."""
    monkeypatch.setattr(processes, 'get_device', lambda: 'cuda')
    seen: list[Config] = []
    monkeypatch.setattr(processes, 'RUNNERS', type('Kept', (), {'build': staticmethod(seen.append)}))
    build_runner(config(**FLEXIBLE, sync_bn='torch'))
    assert seen[0].strategy.to_dict() == {'type': 'DDPStrategy', 'sync_bn': 'torch'}


def test_the_check_of_annotations_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes for each million images, which a set that passed once need not cost again."""
    checked: list[Any] = []

    def stop(cfg: Config) -> None:
        raise InputError('far enough')

    monkeypatch.setattr(launch, 'report_dataset', lambda cfg, splits: checked.append(splits))
    monkeypatch.setattr(launch, 'build_runner', stop)
    common, weights = ['--work-dir', str(tmp_path), '--no-check'], tmp_path / 'weights.pth'
    weights.write_bytes(pickle.dumps({}))
    for command, arguments in ((launch.train, []), (launch.test, [str(weights)])):
        name = 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'
        for options, expected in ((common, 0), (common[:-1], 1)):
            with pytest.raises(InputError, match='far enough'):
                command([name, *arguments, *options])
            assert len(checked) == expected
        checked.clear()

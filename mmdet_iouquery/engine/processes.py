"""Several processes: which of them this is, a process group without CUDA, and the runner that a config asks for.

mmengine starts and joins them wherever it can; here is what it lacks: gloo without CUDA, a common end, and a reason in
words for what a launcher or a strategy lacks.
"""

from __future__ import annotations

import datetime
import importlib.util
import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.multiprocessing import set_sharing_strategy

from ..compat import dumped_as, forget_visualizers
from ..config_files import tools_root
from ..config_options import type_name
from ..errors import InputError

# Rank, rank on this machine and number of processes, as each launcher tells them.
_VARIABLES = {
    'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
}
_STARTED_BY = {
    'pytorch': f'torchrun (dist_train.sh, dist_test.sh in {tools_root()})',
    'slurm': f'srun (slurm_train.sh, slurm_test.sh in {tools_root()})',
    'mpi': "Open MPI's mpirun",
}
# 'full' would also copy to the CPU what is there, at which torch 2.13 crashes (a segmentation fault)
_FULL_ON_CPU = {
    'state_dict_type': 'FULL_STATE_DICT',
    'state_dict_config': {'type': 'FullStateDictConfig', 'rank0_only': True},
    'optim_state_dict_config': {'type': 'FullOptimStateDictConfig', 'rank0_only': True},
}
_SHARDING = {'FSDPStrategy': None, 'DeepSpeedStrategy': 'deepspeed', 'ColossalAIStrategy': 'colossalai'}


def process_rank(launcher: str) -> int:
    """This process's number, from 0, before and after there is a process group.

    Raises:
        InputError: the launcher is named, but did not start this process.
    """
    if launcher == 'none':
        return 0
    missing = [name for name in _VARIABLES[launcher] if name not in os.environ]
    if missing:
        raise InputError(
            f'--launcher {launcher}, but {", ".join(missing)} is not in the environment: start with '
            f'{_STARTED_BY[launcher]}, or leave --launcher out for a single process'
        )
    return int(os.environ[_VARIABLES[launcher][0]])


@contextmanager
def leaving_together() -> Iterator[None]:
    """Wait for the other processes at the end, and close the process group.

    Left open, it can abort a process that is done (torch 2.13, gloo), for which a launcher ends the others, which may
    still be writing. After an error nobody is waited for.
    """
    done = False
    try:
        yield
        done = True
    finally:
        if dist.is_initialized():
            if done:
                dist.barrier()
            if done or dist.get_backend() == 'gloo':  # NCCL's could wait for a process that is gone
                dist.destroy_process_group()


def refuse_nccl_without_cuda(launcher: str, named: str | None) -> None:
    """Raise InputError where the command line itself names NCCL, which talks between CUDA devices only."""
    if launcher != 'none' and named == 'nccl' and get_device() == 'cpu':
        raise InputError(
            'env_cfg.dist_cfg.backend=nccl needs CUDA devices, and torch sees none; leave it out: gloo is taken then'
        )


def build_runner(cfg: Config) -> Any:
    """The runner that a config asks for, ``Runner`` where it names none.

    Without CUDA the processes have found each other over gloo by then.

    Raises:
        InputError: the config's strategy cannot run here.
    """
    _check_strategy(cfg)
    if _is_flexible(cfg) and cfg.launcher != 'none':
        _complete_strategy(cfg)
    if cfg.launcher != 'none' and get_device() == 'cpu':
        _join_on_cpu(cfg)
    if cfg.get('sharing_strategy'):  # before data workers, which inherit it
        set_sharing_strategy(cfg.sharing_strategy)
    cfg = _beside_its_file(cfg)
    forget_visualizers()
    # more workers than cores: torch warns for each loader, those too that try a step; the doctor says it once
    warnings.filterwarnings('ignore', 'This DataLoader will create', UserWarning)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _beside_its_file(cfg: Config) -> Config:
    """A config that lies in its own work folder is written down beside itself, where a runner would replace it."""
    path = Path(cfg.filename) if cfg.filename else None
    if path is None or not path.is_file() or path.resolve() != (Path(cfg.work_dir) / path.name).resolve():
        return cfg
    return dumped_as(cfg, f'{path.stem}_resolved{path.suffix}')


def _check_strategy(cfg: Config) -> None:
    """A strategy needs FlexibleRunner; one that shards, a launcher and its package."""
    if 'strategy' not in cfg:
        return
    name = type_name(cfg.strategy)
    if not _is_flexible(cfg):
        raise InputError(f"strategy={name} needs runner_type='FlexibleRunner' beside it; mmengine's Runner knows none")
    if name in _SHARDING and cfg.launcher == 'none':
        raise InputError(
            f'{name} needs processes that a launcher starts, one at least: use {tools_root() / "dist_train.sh"}'
        )
    package = _SHARDING.get(name)
    if package and importlib.util.find_spec(package) is None:
        raise InputError(f'{name} needs the package {package}, which is not installed: python -m pip install {package}')


def _complete_strategy(cfg: Config) -> None:
    """Settings that FlexibleRunner looks for in the strategy alone, and whole checkpoints instead of a folder each."""
    strategy = _section(cfg, 'strategy', type='DDPStrategy')
    if type_name(strategy) == 'DDPStrategy':
        strategy.setdefault('sync_bn', cfg.get('sync_bn'))
    if type_name(strategy) == 'FSDPStrategy':
        strategy.setdefault('state_dict_cfg', 'full')
        _check_sharding(cfg)


def _check_sharding(cfg: Config) -> None:
    """What mmengine's FSDPStrategy cannot do, found by trying it."""
    if cfg.strategy.state_dict_cfg == 'local':
        raise InputError(
            "FSDPStrategy with state_dict_cfg='local' writes a folder of shards for each checkpoint, which neither "
            '--resume nor `iouquery test` reads; leave state_dict_cfg out for whole ones'
        )
    if any(type_name(hook) == 'EMAHook' for hook in cfg.get('custom_hooks') or ()):
        raise InputError(
            'EMAHook cannot save under FSDPStrategy, where the first process alone has the weights of a checkpoint; '
            'leave it out of custom_hooks, or train without the strategy'
        )
    if (
        cfg.get('resume')
        and next(iter(signature(FullyShardedDataParallel.optim_state_dict_to_load).parameters)) == 'model'
    ):
        raise InputError(
            f"mmengine's FSDPStrategy cannot resume with torch {torch.__version__}, whose optim_state_dict_to_load "
            'takes its arguments in another order; start a new training from the weights with --cfg-options '
            'load_from=CHECKPOINT, or train without the strategy'
        )


def _join_on_cpu(cfg: Config) -> None:
    """Make the process group over gloo and take what needs CUDA out of the config.

    mmengine's own way sets a CUDA device first. Where it finds a process group it goes on with that one.
    """
    first = process_rank(cfg.launcher) == 0
    notes = [*_without_nccl(cfg), *_without_cuda_modules(cfg)]
    settings = dict(cfg.env_cfg.dist_cfg)
    for name in ('init_backend', 'port'):
        settings.pop(name, None)
    if settings.get('timeout') is not None:
        settings['timeout'] = datetime.timedelta(seconds=settings['timeout'])
    if not dist.is_initialized():
        _set_variables(cfg)
        dist.init_process_group(**settings)
    for note in notes if first else ():
        print(f'note: {note}')


def _without_nccl(cfg: Config) -> list[str]:
    settings = _section(_section(cfg, 'env_cfg'), 'dist_cfg')
    if settings.setdefault('backend', 'nccl') != 'nccl':
        return []
    settings['backend'] = 'gloo'
    return ['torch sees no CUDA device: the processes talk over gloo instead of NCCL']


def _without_cuda_modules(cfg: Config) -> list[str]:
    """Batch norms and the model's wrapper as they run on the CPU.

    Batch norms keep their own statistics then. Each step begins with those of the first process, so that the processes
    evaluate with almost the same ones and do not drift apart.
    """
    owner, key = (cfg.strategy, 'model_wrapper') if _is_flexible(cfg) else (cfg, 'model_wrapper_cfg')
    if _is_flexible(cfg) and type_name(owner) == 'FSDPStrategy':
        _section(owner, key, type='MMFullyShardedDataParallel').setdefault('device_id', 'cpu')
        if owner.state_dict_cfg == 'full':
            owner.state_dict_cfg = _FULL_ON_CPU
        return []
    if _is_flexible(cfg) and type_name(owner) != 'DDPStrategy':
        return []
    synchronised, owner.sync_bn = owner.get('sync_bn'), None
    wrapper = _section(
        owner,
        key,
        type='MMDistributedDataParallel',
        broadcast_buffers=bool(synchronised),
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    if type_name(wrapper, default='MMDistributedDataParallel').endswith('DistributedDataParallel'):
        wrapper.setdefault('device_ids', None)  # mmengine would name a CUDA device
    if not synchronised:
        return []
    return [
        f"sync_bn='{synchronised}' needs CUDA: each process's batch norms see its own images alone, and every step "
        'begins with the running statistics of the first process'
    ]


def _is_flexible(cfg: Config) -> bool:
    return type_name(cfg, 'runner_type') == 'FlexibleRunner'


def _section(node: Any, key: str, **default: Any) -> Any:
    """A part of a config, made where it is missing."""
    if not node.get(key):
        node[key] = ConfigDict(default)
    return node[key]


def _set_variables(cfg: Config) -> None:
    """What torch and mmengine read: RANK, LOCAL_RANK, WORLD_SIZE, and where the processes meet."""
    for name, source in zip(_VARIABLES['pytorch'], _VARIABLES[cfg.launcher]):
        os.environ[name] = os.environ[source]
    port = cfg.env_cfg.dist_cfg.get('port') if cfg.launcher == 'slurm' else None
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
    os.environ.setdefault('MASTER_PORT', '29500')
    if cfg.launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_host(os.environ['SLURM_NODELIST'])
    if 'MASTER_ADDR' not in os.environ:
        raise InputError('MASTER_ADDR is not in the environment: set it to the machine that the first process runs on')


def _first_host(nodes: str) -> str:
    """The first name of a Slurm list such as ``node[3-5,9]``."""
    done = subprocess.run(['scontrol', 'show', 'hostnames', nodes], capture_output=True, encoding='utf-8', check=False)
    if done.returncode or not done.stdout.split():
        raise InputError(f'scontrol cannot tell the machines of {nodes!r}: {done.stderr.strip()}; set MASTER_ADDR')
    return done.stdout.split()[0]

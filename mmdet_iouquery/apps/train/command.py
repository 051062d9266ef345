"""What ``iouquery train`` does."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from ...config_files import tools_root
from ...config_options import read_options
from ...deploy.model_source import check_source
from ...engine.detector import read_config
from ...engine.launch import run_training
from ...engine.trained_files import config_of, trained_checkpoint
from ...engine.work_dir import unchanged_unless_started
from ...errors import InputError
from ..child_process import run_child
from .arguments import check
from .request import WRITTEN, TrainRequest, folder_of, written_config


def execute(args: argparse.Namespace) -> None:
    """Train a config as it is, or write one that is fitted to what is asked for and train that.

    Raises:
        InputError: something named is missing or does not fit; see :func:`~mmdet_iouquery.engine.launch.run_training`.
        SystemExit: with the status of processes on several devices, where it is not 0.
    """
    check(args)
    devices = args.devices or 1
    if devices > 1:
        _check_devices(devices, args.launcher)
    request = TrainRequest(
        data=None if args.data is None else Path(args.data),
        weights=args.weights,
        epochs=args.epochs,
        size=args.size,
        batch=args.batch,
        devices=devices,
        options=read_options(args.cfg_options) or {},
        work_dir=None if args.work_dir is None else Path(args.work_dir),
        restart=args.restart,
        log=args.log,
    )
    if not request.is_plain:
        if args.launcher != 'none':
            raise InputError('a config is fitted by one process: name --devices, or train the written config')
        with unchanged_unless_started(folder_of(args.config, request), WRITTEN):
            path, summary = written_config(args.config, request)
            args.config, args.work_dir, args.cfg_options = str(path), str(path.parent), None
            _train(args, devices, summary)
    else:
        _train(args, devices)
    if args.launcher == 'none' and args.dry_run is None and args.work_dir:
        _say_what_comes_next(Path(args.work_dir))


def _train(args: argparse.Namespace, devices: int, summary: str = '') -> None:
    if devices == 1:
        run_training(args, summary=summary)
        return
    from torch.distributed import run

    print(summary, end='', flush=True)
    status = run_child(Path(run.__file__), *_launch_line(args, devices), patience=None)
    if status:
        raise SystemExit(status if status > 0 else 128 - status)


def _say_what_comes_next(folder: Path) -> None:
    checkpoint = trained_checkpoint(folder)
    if checkpoint is not None:
        run = shlex.quote(os.path.relpath(folder))
        print(f'done     {checkpoint}')
        print(f'next     iouquery test {run}')
        print(f'         iouquery detect {run} IMAGE ... --out found')
        if _can_be_exported(folder):
            print(f'         iouquery export {run} -o model.onnx')
        sys.stdout.flush()


def _can_be_exported(folder: Path) -> bool:
    try:
        check_source(read_config(config_of(str(folder))))
    except InputError:
        return False
    return True


def _check_devices(devices: int, launcher: str) -> None:
    import torch

    if launcher != 'none':
        raise InputError('--devices starts the processes by itself: leave --launcher out')
    if torch.cuda.device_count() < devices:
        raise InputError(f'--devices {devices}: torch sees {torch.cuda.device_count()} GPUs here; name as many at most')


def _launch_line(args: argparse.Namespace, devices: int) -> list[str]:
    """Arguments of torch's launcher, and those of the script that it starts."""
    line = ['--standalone', f'--nproc-per-node={devices}', str(tools_root() / 'train.py')]
    line += [args.config, '--launcher', 'pytorch']
    for name in ('work_dir', 'resume', 'amp', 'log', 'dry_run'):
        value = getattr(args, name)
        line += [] if value is None else [f'--{name.replace("_", "-")}', str(value)]
    line += [f'--{name.replace("_", "-")}' for name in ('no_check', 'restart', 'auto_scale_lr') if getattr(args, name)]
    if args.cfg_options:
        line += ['--cfg-options', *(f'{key}={text}' for key, text in args.cfg_options.items())]
    return line

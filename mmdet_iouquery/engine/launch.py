"""Training and testing from a config file: what ``tools/train.py`` and ``tools/test.py`` do."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.runner import Runner
from torch import nn

from ..config_files import config_path
from ..datasets import check_config
from ..errors import InputError
from .checkpoint_check import check_checkpoint
from .resume import checkpoint_to_resume, latest_checkpoint


def common_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that training and testing share; they are mmdet's."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help="config file, or the name of one that came with the package: 'rtdetr/...py'")
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='overrides of the config, such as train_dataloader.batch_size=4',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def load_config(args: argparse.Namespace) -> Config:
    """The config with the command line's overrides and a work folder."""
    path = args.config if Path(args.config).is_file() else config_path(args.config)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(path)
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir or not cfg.get('work_dir'):
        cfg.work_dir = args.work_dir or str(Path('work_dirs') / Path(path).stem)
    return cfg


def train(arguments: Sequence[str] | None = None) -> None:
    """Check everything that a config names, then train."""
    parser = common_parser('Train a detector.')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint; without a path from the newest complete one of the work folder, if any',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the rate to the real batch size')
    args = parser.parse_args(arguments)
    cfg = load_config(args)
    if args.amp:
        if not torch.cuda.is_available():
            raise InputError(
                '--amp needs a CUDA device, and torch sees none; leave it out to train in single precision'
            )
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        _enable_auto_scale(cfg)
    _set_resume(cfg, args.resume)
    report_dataset(cfg, splits=('train', 'val'))
    runner = Runner.from_cfg(cfg)
    if cfg.get('load_from'):
        check_checkpoint(_bare(runner.model), cfg.load_from)
    runner.train()


def test(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate a checkpoint with the config's metric."""
    parser = common_parser('Test a detector: COCO AP of a checkpoint.')
    parser.add_argument('checkpoint')
    parser.add_argument(
        '--out', metavar='PREFIX', help='also write PREFIX.bbox.json (COCO results) and PREFIX.metrics.json'
    )
    args = parser.parse_args(arguments)
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    if args.out:
        _coco_metric(cfg).outfile_prefix = args.out
    report_dataset(cfg, splits=('test',))
    runner = Runner.from_cfg(cfg)
    check_checkpoint(_bare(runner.model), args.checkpoint)
    metrics = runner.test()
    if args.out and runner.rank == 0:
        Path(f'{args.out}.metrics.json').write_text(
            json.dumps({k: float(v) for k, v in metrics.items()}, indent=1) + '\n'
        )
    return metrics


def report_dataset(cfg: Config, splits: Sequence[str]) -> None:
    """Check the data sets of ``splits`` ('train', 'val', 'test'), on the first process, and print what they warn of."""
    if int(os.environ.get('RANK', 0)) != 0:
        return
    others = tuple(f'{split}_' for split in {'train', 'val', 'test'} - set(splits))
    for report in check_config(Config(ConfigDict({k: v for k, v in cfg.items() if not k.startswith(others)}))):
        for warning in report.warnings:
            print(f'note: {warning}')


def run_tool(command: Callable[[], object]) -> int:
    """Run a command line; bad input is said in a sentence, status 2, instead of a traceback."""
    try:
        command()
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def _coco_metric(cfg: Config) -> ConfigDict:
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    for evaluator in evaluators:
        if evaluator.type in ('CocoMetric', 'mmdet.CocoMetric'):
            return evaluator
    raise InputError(f'--out writes what a CocoMetric finds, and test_evaluator of {cfg.filename} has none')


def _enable_auto_scale(cfg: Config) -> None:
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise InputError(f'--auto-scale-lr needs auto_scale_lr.base_batch_size, which {cfg.filename} does not have')
    cfg.auto_scale_lr.enable = True


def _set_resume(cfg: Config, resume: str | None) -> None:
    if resume is None:
        return
    found = latest_checkpoint(cfg.work_dir) if resume == 'auto' else checkpoint_to_resume(resume)
    if found is None:
        print(f'note: nothing to resume in {cfg.work_dir}; training starts from the beginning')
        return
    print(f'resuming from {found}')
    cfg.resume, cfg.load_from = True, str(found)


def _bare(model: nn.Module) -> nn.Module:
    """A model without its distributed wrapper."""
    return getattr(model, 'module', model)

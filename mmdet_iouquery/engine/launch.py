"""Training and testing from a config file: what ``iouquery train`` and ``iouquery test`` do."""

from __future__ import annotations

import argparse
import copy
import glob
import json
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from torch import nn

from iouquery_runtime import InputError as RuntimeInputError
from iouquery_runtime.backends import check_file

from ..checkpoints.files import checkpoint_file
from ..checkpoints.initializer import is_local
from ..checkpoints.model_card import DATA_OPTIONS, WEIGHTS
from ..checkpoints.notes import checkpoint_notes
from ..choices import is_exported
from ..command_line import evaluation_parser, named_files, training_parser
from ..compat import end_data_workers
from ..config_files import find_config
from ..config_options import as_list, merge_options, read_options
from ..datasets import check_config
from ..datasets.coco.checks import is_coco_metric
from ..deploy import prepare_for_inference
from ..deploy.exported import ExportedDetector, differences
from ..errors import InputError, RunError, TrainingStopped, same_command
from ..file_io import write_text
from .held_output import held_back
from .hooks.progress_hook import closed_progress
from .loggers import add_loggers
from .preflight.checkpoint_check import check_checkpoint, check_pretrained
from .preflight.config_mistakes import named_mistakes, while_starting
from .preflight.config_values import check_sections, check_values
from .preflight.dry_run import dry_run
from .preflight.first_pass import first_pass
from .processes import build_runner, leaving_together, process_rank, refuse_nccl_without_cuda
from .run_settings import annotation_checksums, record, settings_of
from .start_or_resume import begin
from .stop_reasons import told_data_faults, told_endings
from .trained_files import model_files
from .work_dir import check_room, checkpoint_folder, claimed, made, unchanged_by_errors

_PARTIAL = '.partial'  # between prefix and ending of files that an evaluation has not finished


def load_config(args: argparse.Namespace) -> Config:
    """The config with the command line's overrides and a work folder."""
    path = find_config(args.config)
    options = read_options(args.cfg_options)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    refuse_nccl_without_cuda(args.launcher, (options or {}).get('env_cfg.dist_cfg.backend'))
    with named_mistakes({}, f'reading {path}'):
        cfg = Config.fromfile(path)
        cfg.launcher = args.launcher
        merge_options(cfg, options)
    if args.work_dir or not cfg.get('work_dir'):
        cfg.work_dir = args.work_dir or str(Path('work_dirs') / path.stem)
    return cfg


def train(arguments: Sequence[str] | None = None, hooks: Sequence[Hook] = (), summary: str = '') -> None:
    """What :func:`run_training` does, with the arguments of a command line."""
    run_training(training_parser().parse_args(arguments), hooks, summary)


def run_training(args: argparse.Namespace, hooks: Sequence[Hook] = (), summary: str = '') -> None:
    """Check everything that a config names, then train.

    Args:
        args: of the command line.
        hooks: beside those of the config.
        summary: printed where the training is not refused.
    """
    if args.dry_run is not None and args.dry_run < 1:
        raise InputError(f'--dry-run {args.dry_run}: name at least 1 box an image')
    cfg = load_config(args)
    check_sections(cfg, 'train')
    check_values(cfg)
    if args.amp:
        _enable_amp(cfg, args.amp)
    if args.auto_scale_lr:
        _enable_auto_scale(cfg)
    if args.restart and args.resume:
        raise InputError('--restart starts anew and --resume goes on: give one of them')
    is_first = process_rank(cfg.launcher) == 0
    with ExitStack() as stack:
        if args.dry_run is not None:  # nothing of it is kept
            cfg.work_dir = tempfile.mkdtemp(prefix='iouquery-dry-run-')
            stack.callback(shutil.rmtree, cfg.work_dir, ignore_errors=True)
        elif is_first:  # for all processes of this training
            stack.enter_context(made(cfg.work_dir))
            stack.enter_context(claimed(cfg.work_dir))
            stack.enter_context(unchanged_by_errors(cfg.work_dir, checkpoint_folder(cfg)))
        runner = _ready(cfg, args, summary)
        if runner is None:
            return
        for hook in hooks:
            runner.register_hook(hook)
        starting = named_mistakes(cfg, 'starting the training', only=while_starting)
        with told_endings(runner, checkpoint_folder(cfg)), starting, closed_progress(runner):
            try:
                runner.train()
            finally:
                end_data_workers(runner)


def _ready(cfg: Config, args: argparse.Namespace, summary: str) -> Any:
    """A runner that can train, after everything has been looked at; None: there is nothing to train."""
    settings = settings_of(cfg)
    if args.log is not None:  # how a run is watched is no setting of it
        add_loggers(cfg, args.log.split(','))
    with held_back() as held:
        with redirect_stdout(held):
            print(summary, end='')
            if args.dry_run is None and not begin(cfg, settings, resume=args.resume, restart=args.restart):
                return None
        if not args.no_check:
            report_dataset(cfg, splits=('train', 'val'))
        with named_mistakes(cfg, 'building the run'), redirect_stdout(held):
            runner = build_runner(cfg)
            model = _bare(runner.model)
        check_pretrained(cfg.model, model)
        if cfg.get('load_from'):
            _check_begin(cfg, model)
            report_differences(cfg, cfg.load_from)
        if not args.no_check:
            try_out(runner, model, cfg, 'train')
        largest_step = None if args.dry_run is None else dry_run(runner, args.dry_run)
        if largest_step is None and runner.rank == 0:
            check_room(cfg, model)
            record(Path(cfg.work_dir), settings, annotation_checksums(settings))
    if largest_step is not None:
        print(largest_step)
        return None
    return runner


def test(arguments: Sequence[str] | None = None) -> dict[str, float]:  # noqa: PT028  no test of pytest
    """What :func:`run_test` does, with the arguments of a command line."""
    return run_test(evaluation_parser().parse_args(arguments))


def run_test(args: argparse.Namespace) -> dict[str, float]:
    """Evaluate a checkpoint with the config's metric."""
    with redirect_stdout(sys.stderr) if args.json else nullcontext():
        metrics = _test(args)
    if args.json and process_rank(args.launcher) == 0:
        print(as_json(metrics))
    return metrics


def as_json(metrics: Mapping[str, float]) -> str:
    """Numbers for other programs; null: one that is not finite, which JSON does not know."""
    values = {name: float(value) for name, value in metrics.items()}
    return json.dumps({name: value if math.isfinite(value) else None for name, value in values.items()}, indent=1)


def _test(args: argparse.Namespace) -> dict[str, float]:
    with held_back() as held:
        runner = _ready_to_test(args, held)
    with told_data_faults(), named_mistakes(runner.cfg, 'starting the test', only=while_starting):
        try:
            metrics = runner.test()
        finally:
            end_data_workers(runner)
    if args.out and runner.rank == 0:
        _name_results(Path(args.out))
        text = json.dumps({k: float(v) for k, v in metrics.items()}, indent=1)
        write_text(Path(f'{args.out}.metrics.json'), text + '\n')
    return metrics


def _ready_to_test(args: argparse.Namespace, held: Any) -> Any:
    """A runner that can test, after everything has been looked at; mmengine logs to ``held``."""
    args.config, args.checkpoint = model_files(named_files(args))
    cfg = load_config(args)
    check_sections(cfg, 'test')
    check_values(cfg)
    cfg.load_from, cfg.resume = args.checkpoint, False
    of_model = copy.deepcopy(cfg)
    if is_exported(args.checkpoint):
        _test_exported(cfg, args)
    elif is_local(args.checkpoint):
        checkpoint_file(args.checkpoint)  # before data, which may take long
    if args.prepare:
        hook = dict(type='PrepareForInferenceHook', dtype=args.dtype)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]
    if args.out:
        _coco_metric(cfg).outfile_prefix = f'{args.out}{_PARTIAL}'
    _require_data(cfg, args)
    with ExitStack() as stack:
        if process_rank(cfg.launcher) == 0:
            stack.enter_context(made(cfg.work_dir))
            if args.out:
                stack.enter_context(made(Path(args.out).parent, option='--out'))
        if not args.no_check:
            report_dataset(cfg, splits=('test',))
    with named_mistakes(cfg, 'building the run'), redirect_stdout(held):
        runner = build_runner(cfg)
        model = _bare(runner.model)
    if isinstance(model, ExportedDetector):
        model.check_classes(runner.test_dataloader.dataset.metainfo['classes'])
        if different := differences(model.detector, of_model):
            print(f'note: {args.config} and {args.checkpoint} differ: {different}')
    else:
        check_checkpoint(model, args.checkpoint)
        report_differences(cfg, args.checkpoint)
    if not args.prepare:
        runner.model.to(getattr(torch, args.dtype))
    if not args.no_check and not isinstance(model, ExportedDetector):
        tried = prepare_for_inference(model, getattr(torch, args.dtype)) if args.prepare else model
        try_out(runner, tried, cfg, 'test')
    return runner


def _require_data(cfg: Config, args: argparse.Namespace) -> None:
    """Raise InputError where a shared detector is tested, whose config has no paths, and no data is named."""
    if Path(args.checkpoint) != Path(args.config).with_name(WEIGHTS):
        return
    dataset = cfg.test_dataloader.dataset
    file, roots = str(dataset.get('ann_file') or ''), ('', dataset.get('data_root') or '')
    if file and '://' not in file and not any(Path(root, file).is_file() for root in roots):
        raise InputError(
            f'{args.config} is the config of a shared detector, which names no data of this machine; name yours: '
            f'--cfg-options {DATA_OPTIONS}'
        )


def _test_exported(cfg: Config, args: argparse.Namespace) -> None:
    """Put an exported file in the place of the config's model."""
    check_file(Path(args.checkpoint))
    if args.prepare or args.dtype == 'float16':
        raise InputError(
            f'{args.checkpoint} is an exported file, whose graph is as it is: leave out --prepare and --dtype '
            'float16, and export with what you want to test'
        )
    if args.launcher != 'none':
        raise InputError(f'{args.checkpoint} is an exported file, which is tested in one process: leave --launcher out')
    precision = None if args.dtype == 'float32' else args.dtype
    settings = dict(path=args.checkpoint, precision=precision, threads=torch.get_num_threads())
    cfg.model = ConfigDict(type='ExportedDetector', **settings)
    cfg.load_from = None
    args.dtype = 'float32'


def report_dataset(cfg: Config, splits: Sequence[str], of: str = '') -> None:
    """Check the data sets of ``splits`` ('train', 'val', 'test'), on the first process, and print what they warn of.

    Args:
        of: what the config is called, where there are several.
    """
    if process_rank(cfg.get('launcher', 'none')) != 0:
        return
    others = tuple(f'{split}_' for split in {'train', 'val', 'test'} - set(splits))
    for report in check_config(Config(ConfigDict({k: v for k, v in cfg.items() if not k.startswith(others)}))):
        for warning in report.warnings:
            print(f'note: {of}: {warning}' if of else f'note: {warning}')


def _check_begin(cfg: Config, model: nn.Module) -> None:
    """Raise :class:`InputError` where a training cannot begin with, or go on from, ``load_from``."""
    try:
        check_checkpoint(model, cfg.load_from, to_resume=cfg.get('resume', False))
    except InputError as error:
        if not is_local(cfg.load_from) or Path(cfg.load_from).exists():
            raise
        raise InputError(
            f'load_from: {error}; or begin with --weights FILE, a detector, or --weights none, at random'
        ) from error


def try_out(runner: Any, model: nn.Module, cfg: Config, mode: str) -> None:
    """Try a step and an evaluation, and print, on the first process, what is to be said of them."""
    for note in first_pass(runner, model, cfg, mode):
        if runner.rank == 0:
            print(f'note: {note}')


def report_differences(cfg: Config, checkpoint: str) -> None:
    """Print, on the first process, where a config and a checkpoint were not made for each other."""
    if process_rank(cfg.get('launcher', 'none')) == 0:
        for note in checkpoint_notes(cfg, checkpoint):
            print(f'note: {note}')


def run_tool(command: Callable[[], object]) -> int:
    """Run a command line. What it can foresee is said in a sentence instead of a traceback, with a fixed exit status.

    ========== =================================================================================================
    status     ending
    ========== =================================================================================================
    0          done
    1          an error that nobody has foreseen, with its traceback; or in a sentence: eight bits cost too much AP
    2          bad input: ``InputError``, and argparse's own
    3          training met values that are not finite: ``NonFiniteError``
    4          a checkpoint, or another file of the run, cannot be written: ``CheckpointWriteError``
    5          a process that loads data died: ``DataWorkerError``
    6          an exported file computes something else than the model: ``ParityError``
    128 + n    stopped by signal n: 130 by SIGINT (Ctrl-C), 138 by SIGUSR1, 143 by SIGTERM: ``TrainingStopped``
    ========== =================================================================================================
    """
    logging.raiseExceptions = False  # where the disk is full, each line for the log file would leave a traceback
    try:
        with _sigterm_ends_by_an_exception(), leaving_together():
            command()
    except (InputError, RuntimeInputError, RunError) as error:
        print(f'error: {error}', file=sys.stderr)
        return error.status
    except TrainingStopped as stop:
        print(stop, file=sys.stderr)
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print(_stopped(signal.SIGINT), file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


@contextmanager
def _sigterm_ends_by_an_exception() -> Iterator[None]:
    """Have SIGTERM raise TrainingStopped, so that what is half made is removed; a training has its own way to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python calls handlers in the main thread only
        return
    pid = os.getpid()

    def stop(signum: int, _frame: object) -> None:
        if os.getpid() != pid:  # a process forked from this one, such as a data worker: it ends as it would have
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        raise _stopped(signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _stopped(signum: int) -> TrainingStopped:
    return TrainingStopped(signum, f'before it was done; {same_command()} starts again, or goes on where it was')


def _name_results(prefix: Path) -> None:
    """Give the files of a finished evaluation their names; one that was stopped leaves those of the one before."""
    for path in prefix.parent.glob(f'{glob.escape(prefix.name + _PARTIAL)}.*.json'):
        os.replace(path, path.with_name(path.name.replace(f'{prefix.name}{_PARTIAL}', prefix.name, 1)))


def _coco_metric(cfg: Config) -> ConfigDict:
    for evaluator in as_list(cfg.test_evaluator):
        if is_coco_metric(evaluator):
            return evaluator
    raise InputError(
        f'--out writes what a CocoMetric finds, and test_evaluator of {cfg.filename} has none; add one, or leave --out '
        'out'
    )


def _enable_amp(cfg: Config, dtype: str) -> None:
    if dtype == 'bfloat16':
        cfg.optim_wrapper.type = 'BFloat16OptimWrapper'
        return
    if not torch.cuda.is_available():
        raise InputError(
            '--amp (float16) needs a CUDA device, and torch sees none; use --amp bfloat16, or leave it out to train in '
            'single precision'
        )
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _enable_auto_scale(cfg: Config) -> None:
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise InputError(f'--auto-scale-lr needs auto_scale_lr.base_batch_size, which {cfg.filename} does not have')
    cfg.auto_scale_lr.enable = True


def _bare(model: nn.Module | dict[str, Any]) -> nn.Module:
    """A model without its distributed wrapper; built for the purpose where the runner has not built it yet."""
    return MODELS.build(copy.deepcopy(model)) if isinstance(model, dict) else getattr(model, 'module', model)

"""What ``iouquery predict`` runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iouquery_runtime.jobs import command

from ...choices import is_exported
from ...config_files import find_config
from ...errors import InputError
from .arguments import parser

if TYPE_CHECKING:
    from iouquery_runtime.jobs.worker import Opener


def predict(arguments: Sequence[str] | None = None) -> None:
    """What :func:`execute` does, with the arguments of a command line."""
    execute(parser().parse_args(arguments))


def execute(args: argparse.Namespace) -> None:
    """Detect in all images, and leave with the status of :func:`iouquery_runtime.jobs.command.run`.

    Raises:
        InputError: something named is missing or does not fit.
        SystemExit: with the status, where it is not 0.
    """
    status = command.run(args, lambda: _opener(args))
    if status:
        raise SystemExit(status)


def _opener(args: argparse.Namespace) -> Opener:
    from iouquery_runtime.jobs.worker import ExportedOpener  # what it needs has been found by now

    settings: dict[str, Any] = dict(score_thr=args.score_thr, threads=args.threads, gpu=bool(args.gpus_per_worker))
    if is_exported(args.model[0]):
        if len(args.model) > 1 or args.prepare or args.cfg_options or args.dtype != 'float32':
            raise InputError(
                f'{args.model[0]} is an exported file, which is used as it is: leave out a checkpoint, --prepare, '
                '--dtype and --cfg-options, or name CONFIG CHECKPOINT'
            )
        return ExportedOpener(args.model[0], **settings)
    if len(args.model) > 2 or (len(args.model) == 1 and not Path(args.model[0]).is_dir()):
        if len(args.model) == 1:
            find_config(args.model[0])  # there may be nothing of that name
        raise InputError(
            f'{" ".join(args.model)}: name as the model an exported .onnx or .xml file, or two files, CONFIG '
            'CHECKPOINT, or the work folder of a training'
        )
    from ...config_options import read_options
    from ...engine.detector import read_config
    from ...engine.launch import report_differences
    from ...engine.trained_files import model_files
    from .torch_detector import TorchOpener

    config, checkpoint = model_files(args.model)
    cfg = read_config(config, read_options(args.cfg_options))
    report_differences(cfg, checkpoint)
    return TorchOpener(cfg, checkpoint, dtype=args.dtype, prepare=args.prepare, **settings)

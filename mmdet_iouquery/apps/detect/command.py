"""What ``iouquery detect`` does."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from iouquery_runtime import InputError as RuntimeInputError
from iouquery_runtime import Result, command

from ...choices import is_exported
from ...config_files import find_config
from ...errors import InputError

CHECKPOINTS = ('.pth', '.pt', '.safetensors')

if TYPE_CHECKING:
    from ..detector import Detector


def detect(args: argparse.Namespace) -> None:
    """Print a line for each image, draw, write down.

    Raises:
        SystemExit: with the status of :func:`iouquery_runtime.command.run`, where it is not 0.
    """
    status = command.run(args, command.exported if is_exported(args.model) else _opened)
    if status:
        raise SystemExit(status)


def _opened(args: argparse.Namespace) -> command.Detect:
    if args.image_size:
        raise RuntimeInputError(
            f'--image-size is for exported files; {args.model} says by itself what it resizes to: leave it out'
        )
    _check_weights(args)
    import torch

    from ...engine.launch import report_differences
    from ..detector import Detector

    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # which files a folder stands for
            detector: Detector = Detector(args.model, args.weights, device=args.device)
            detector.model  # noqa: B018  what is wrong with the weights is said before anything is made
            report_differences(detector.config, str(detector.weights))
    except InputError as error:
        raise RuntimeInputError(str(error)) from error
    score_thr = command.SCORE_THR if args.score_thr is None else args.score_thr

    return lambda image: cast(Result, detector(image, score_thr, on_error='skip'))


def _check_weights(args: argparse.Namespace) -> None:
    """Whether a model is named as a config with --weights, or as a folder, which has both."""
    if Path(args.model).suffix in CHECKPOINTS:
        raise RuntimeInputError(
            f'{args.model} is a checkpoint: name its config, and it by --weights; or the work folder of its training'
        )
    if args.weights is not None or Path(args.model).is_dir():
        return
    if any(Path(image).suffix in CHECKPOINTS for image in args.images):
        raise RuntimeInputError('a checkpoint among the images: name it by --weights FILE, after CONFIG IMAGE ...')
    try:
        find_config(args.model)
    except InputError as error:
        raise RuntimeInputError(str(error)) from error
    raise RuntimeInputError(
        f'{args.model} has no weights, and nothing is detected without: give --weights FILE, or name a work folder or '
        'an exported file'
    )

"""The command line of ``iouquery train``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...command_line import check_config, training_parser
from ...errors import InputError

NONE = 'none'
"""For ``--weights``: begin with random ones, the backbone's too."""
STRIDE = 32
"""Of the coarsest map: sides of images are multiples of it."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """That of training a config as it is, and what a config is fitted to."""
    parser = training_parser(prog)
    parser.description = (
        'Train a detector: a config as it is; or, with any of the options of the last group, one that is based on it, '
        'written into the work folder.'
    )
    add = parser.add_argument_group('to be trained otherwise than the config says').add_argument
    add('--data', metavar='PATH', help='your own set, in any form that `iouquery data` reads')
    add(
        '--weights',
        metavar='FILE',
        help="a checkpoint to begin with, of this package, the authors or transformers; rows of the data's classes are "
        'kept; `none`: begin with random weights, the backbone too; left out: as the config says, which may have a '
        'file fetched',
    )
    add('--epochs', type=int, metavar='N', help='schedule and augmentation keep their shares of the run')
    add('--size', type=int, metavar='PX', help='side of the square that images are resized to, or their longer side')
    add('--batch', type=int, metavar='N', help='images a device and step (with --data: 8); the rate goes with it')
    parser.add_argument('--devices', type=int, metavar='N', help='train on so many GPUs of this machine')
    return parser


def check(args: argparse.Namespace) -> None:
    """Whether the config is there, and numbers and files can be meant.

    Raises:
        InputError: they cannot.
    """
    check_config(args)
    for name in ('epochs', 'batch', 'devices'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f'--{name} {value}: name at least 1')
    check_size(args.size)
    for name in ('data', 'weights'):
        value = getattr(args, name)
        if value not in (None, NONE) and not Path(value).expanduser().exists():
            others = ', convert published ones (`iouquery convert`), or say --weights none to begin without'
            raise InputError(
                f'--{name}: there is no file or folder {value}; correct the path{others if name == "weights" else ""}'
            )


def check_size(size: int | None) -> None:
    """Whether maps of a square of ``size`` px fit; None: it is not given.

    Raises:
        InputError: they do not.
    """
    if size is not None and (size < 2 * STRIDE or size % STRIDE):
        raise InputError(f'--size {size}: name a multiple of {STRIDE}, from {2 * STRIDE} on')

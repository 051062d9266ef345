"""The command line of ``iouquery train``."""

from __future__ import annotations

import argparse

from ...command_line import training_parser


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
        'kept; none: begin with random weights, the backbone too',
    )
    add('--epochs', type=int, metavar='N', help='schedule and augmentation keep their shares of the run')
    add('--size', type=int, metavar='PX', help='side of the square that images are resized to')
    add('--batch', type=int, metavar='N', help='images a device and step (with --data: 8); the rate goes with it')
    parser.add_argument('--devices', type=int, metavar='N', help='train on so many GPUs of this machine')
    return parser

"""The command line of ``iouquery predict``."""

from __future__ import annotations

import argparse

from iouquery_runtime.jobs import arguments

from ...choices import is_exported
from ...command_line import add_options


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments: those of jobs, and what a config and a checkpoint can have."""
    parser = arguments.parser(
        prog or 'predict.py',
        nargs='+',
        metavar='MODEL',
        help='an exported .onnx or .xml file; or a config and a checkpoint; or the work folder of a training',
    )
    parser.add_argument(
        '--dtype', choices=['float32', 'float16', 'bfloat16'], default='float32', help="cast a checkpoint's weights"
    )
    parser.add_argument('--prepare', action='store_true', help='make a checkpoint faster by prepare_for_inference')
    add_options(parser, 'overrides of the config')
    return parser


def is_light(args: argparse.Namespace) -> bool:
    """An exported file needs neither torch nor mmdet."""
    return is_exported(args.model[0])

"""The command line of ``iouquery detect``."""

from __future__ import annotations

import argparse

from iouquery_runtime import command

from ...choices import is_exported


def parser(prog: str) -> argparse.ArgumentParser:
    """That of the runtime, and what a config needs beside it."""
    parser = command.parser(
        prog, 'an exported .onnx or .xml file; a work folder of a training; a folder of save_pretrained; or a config'
    )
    parser.add_argument('--weights', metavar='FILE', help='of a config')
    parser.add_argument('--device', help='of a config: cpu, cuda, cuda:1 (cuda where there is one)')
    return parser


def is_light(args: argparse.Namespace) -> bool:
    """An exported file needs neither torch nor mmdet."""
    return is_exported(args.model)

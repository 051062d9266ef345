"""The command line of ``iouquery data``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ...errors import InputError


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Read a set of images with labels (COCO, YOLO, Pascal VOC, a CSV of boxes, an export of Label '
        'Studio or CVAT, or a zip of one), write it as COCO JSON beside it, check it, and say what was understood and '
        'what was left out.',
    )
    parser.add_argument('path', metavar='PATH', help='a folder, a zip, or the file that describes or holds the labels')
    parser.add_argument('--out', metavar='DIR', help='folder to write to (default: PATH-coco, beside PATH)')
    parser.add_argument(
        '--seed', type=int, default=0, metavar='N', help='of the draw of validation images, where there are none (0)'
    )
    parser.add_argument(
        '--json', action='store_true', help='print what was understood as JSON, all else on standard error'
    )
    return parser


def check(args: argparse.Namespace) -> None:
    """Whether the set is there, see :func:`given_path`."""
    given_path(args.path)


def given_path(path: str | os.PathLike[str]) -> Path:
    """The whole path of a set; raises :class:`InputError` where there is nothing."""
    given = Path(os.path.abspath(Path(path).expanduser()))
    if not given.exists():
        raise InputError(f'no folder or file {given}; name a set of images with its labels')
    return given

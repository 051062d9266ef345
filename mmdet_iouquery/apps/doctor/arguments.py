"""The command line of ``python -m mmdet_iouquery.doctor``."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any

from ...command_line import add_options, complete_configs

_KINDS = ('data', 'checkpoint')


class _Doctor(argparse.ArgumentParser):
    """A parser that has a word of its own for a doctor that there is not."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As ever, but for a first word that is neither an option nor a doctor."""
        given = [*(sys.argv[1:] if args is None else args)]
        if given and not given[0].startswith('-') and given[0] not in _KINDS:
            close = difflib.get_close_matches(given[0], _KINDS, n=1)
            hint = (
                f'did you mean `doctor {close[0]}`?'
                if close
                else 'it takes `data CONFIG`, `checkpoint FILE` or nothing'
            )
            self.error(f'there is no doctor of {given[0]!r}; {hint}')
        return super().parse_known_args(given, namespace)


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments: of the installation's doctor, or of those of ``data`` and ``checkpoint``, as ``doctor``."""
    parser = _Doctor(
        prog=prog or 'python -m mmdet_iouquery.doctor',
        description='Check the installation; or, as `doctor data CONFIG`, the data that a config names; or, as '
        '`doctor checkpoint FILE`, what a checkpoint holds.',
    )
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    doctors = parser.add_subparsers(dest='doctor', parser_class=argparse.ArgumentParser)
    _data(doctors)
    _checkpoint(doctors)
    return parser


def _data(doctors: Any) -> None:
    text = 'Read the annotations and images that a config names, and say what training makes of them.'
    parser = doctors.add_parser('data', description=text, help='look at the annotations and images of a config')
    complete_configs(
        parser.add_argument('config', help='config file, the name of one that came with the package, or a work folder')
    )
    add_options(parser, 'overrides')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='processes (default: one a core)')
    parser.add_argument('--limit', type=int, help='look at no more images of a set than this (default: all)')
    parser.add_argument('--json', action='store_true', help='print everything as JSON')


def _checkpoint(doctors: Any) -> None:
    text = 'Say whether a checkpoint file is whole and free of code, and what it holds. Nothing in it is run.'
    parser = doctors.add_parser('checkpoint', description=text, help='look at a checkpoint file')
    parser.add_argument(
        'file',
        help='a .pth, .pt, .bin or .safetensors file; a Hugging Face folder; a work folder; an exported .onnx or .xml',
    )
    parser.add_argument('--json', action='store_true', help='print everything as JSON')

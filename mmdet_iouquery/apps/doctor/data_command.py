"""``python -m mmdet_iouquery.doctor data CONFIG``: the data that a config names, looked at before training."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from ...config_options import KeyValue
from ...datasets.coco.checks import read_sets
from ...errors import InputError
from .data_findings import findings, limits_of
from .data_inspection import inspect
from .data_report import exit_status, render, to_json


def main(read_config: Any, arguments: Sequence[str]) -> int:
    """Look, print, and return the exit status: 0 fine, 1 findings that falsify results or stop a run, 2 bad input.

    Args:
        read_config: gives the config of a path or name and overrides.
        arguments: of the command line, without ``data``.
    """
    args = _parser().parse_args(arguments)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what imported packages print does not belong into the report
            cfg = read_config(args.config, args.cfg_options)
            read = read_sets(cfg)
            sets = inspect(read, workers=args.workers, limit=args.limit)
            data_findings = findings(sets, limits_of(cfg.get('model') or {}), read.unchecked)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(to_json(sets, data_findings) if args.json else render(sets, data_findings))
    return exit_status(data_findings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m mmdet_iouquery.doctor data',
        description='Read the annotations and images that a config names, and say what training makes of them.',
    )
    parser.add_argument('config', help='config file, or the name of one that came with the package')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValue, metavar='KEY=VALUE', help='overrides')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='processes (default: one a core)')
    parser.add_argument('--limit', type=int, help='look at no more images of a set than this (default: all)')
    parser.add_argument('--json', action='store_true', help='print everything as JSON')
    return parser

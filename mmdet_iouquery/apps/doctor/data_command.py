"""``python -m mmdet_iouquery.doctor data CONFIG``: the data that a config names, looked at before training."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from ...config_options import read_options
from ...datasets.coco.checks import read_sets
from ...engine.trained_files import config_of
from ...errors import InputError
from .data_findings import findings, limits_of
from .data_inspection import inspect
from .data_report import exit_status, render, to_json


def look_at_data(read_config: Any, args: argparse.Namespace) -> int:
    """Look, print, and return the exit status: 0 fine, 1 findings that falsify results or stop a run, 2 bad input.

    Args:
        read_config: gives the config of a path or name and overrides.
        args: of the command line.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what imported packages print does not belong into the report
            cfg = read_config(config_of(args.config), read_options(args.cfg_options))
            read = read_sets(cfg)
            sets = inspect(read, workers=args.workers, limit=args.limit)
            data_findings = findings(sets, limits_of(cfg.get('model') or {}), read.unchecked)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(to_json(sets, data_findings) if args.json else render(sets, data_findings))
    return exit_status(data_findings)

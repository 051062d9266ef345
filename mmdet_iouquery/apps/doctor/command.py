"""What ``python -m mmdet_iouquery.doctor`` runs.

The exit status is 0 when training can run and 1 when it cannot. ``doctor data CONFIG`` looks at the data that a config
names instead, see :mod:`.data_inspection`, and ``doctor checkpoint FILE`` at a checkpoint, see :mod:`.checkpoint`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ... import compat
from ...choices import is_exported
from ...errors import InputError
from .arguments import parser
from .environment import examine, gather, render, to_json


def main(arguments: Sequence[str] | None = None) -> int:
    """What :func:`execute` does, with the arguments of a command line."""
    return execute(parser().parse_args(arguments))


def execute(args: argparse.Namespace) -> int:
    """Run the doctor that is asked for, and return the exit status."""
    if args.doctor == 'data':
        return _data(args)
    if args.doctor == 'checkpoint':
        return _checkpoint(args)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what imported packages print does not belong into the report
            report = examine(gather())
    except Exception as error:  # a doctor that crashes helps nobody: say what happened, in one line
        print(f'the doctor itself failed: {type(error).__name__}: {error}; please report this')
        return 1
    print(to_json(report) if args.json else render(report))
    return 0 if report.can_train else 1


def _data(args: argparse.Namespace) -> int:
    """The data doctor, which needs what training needs: where that is missing, the other doctor says what.

    The status is 0, 1 for findings that falsify results or stop a run, or 2 for bad input.
    """
    try:
        compat.install_ops_stand_in()
        from ...config_options import read_options
        from ...datasets.coco.checks import read_sets
        from ...engine.detector import read_config
        from ...engine.trained_files import config_of
        from . import data_report
        from .data_findings import findings, limits_of
        from .data_inspection import inspect
    except ImportError as error:
        print(f'error: {error}; `python -m mmdet_iouquery.doctor` says what is missing', file=sys.stderr)
        return 2
    try:
        with contextlib.redirect_stdout(sys.stderr):
            cfg = read_config(config_of(args.config), read_options(args.cfg_options))
            read = read_sets(cfg)
            sets = inspect(read, workers=args.workers, limit=args.limit)
            data_findings = findings(sets, limits_of(cfg.get('model') or {}), read.unchecked)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print((data_report.to_json if args.json else data_report.render)(sets, data_findings))
    return data_report.exit_status(data_findings)


def _checkpoint(args: argparse.Namespace) -> int:
    """The doctor of a checkpoint, which needs torch alone, but for a work folder, and of an exported file.

    The status is 0, or 2 where the file is not safe to read, or not whole, which is said in a sentence.
    """
    try:
        compat.allow_own_checkpoints()
        if is_exported(args.file):
            from . import exported

            contents = exported.inspect_exported(args.file)
            print(json.dumps(contents, indent=2) if args.json else exported.render(contents))
            return 0
        if any(Path(args.file).glob('*.pth')):
            compat.install_ops_stand_in()
            from ...engine.trained_files import checkpoint_of

            args.file = checkpoint_of(args.file)
        from . import checkpoint

        facts = checkpoint.inspect_checkpoint(args.file)
        print(json.dumps(facts._asdict(), indent=2) if args.json else checkpoint.render(facts))
    except ImportError as error:
        print(f'error: {error}; `python -m mmdet_iouquery.doctor` says what is missing', file=sys.stderr)
        return 2
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.status
    return 0

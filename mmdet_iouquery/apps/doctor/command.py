"""The command line of ``python -m mmdet_iouquery.doctor``.

The exit status is 0 when training can run and 1 when it cannot. ``doctor data CONFIG`` looks at the data instead, see
:mod:`.data_command`, and ``doctor checkpoint FILE`` at a checkpoint, see :mod:`.checkpoint`.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import sys
from collections.abc import Sequence

from ... import compat
from .environment import examine, gather, render, to_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the doctor and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ['data']:
        return _data(given[1:])
    if given[:1] == ['checkpoint']:
        return _checkpoint(given[1:])
    parser = argparse.ArgumentParser(
        prog='python -m mmdet_iouquery.doctor',
        description='Check the installation; or, as `doctor data CONFIG`, the data that a config names; or, as '
        '`doctor checkpoint FILE`, what a checkpoint holds.',
    )
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    if given and not given[0].startswith('-'):
        close = difflib.get_close_matches(given[0], ('data', 'checkpoint'), n=1)
        hint = f'did you mean `doctor {close[0]}`?' if close else 'it takes `data CONFIG`, `checkpoint FILE` or nothing'
        parser.error(f'there is no doctor of {given[0]!r}; {hint}')
    as_json = parser.parse_args(given).json
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what imported packages print does not belong into the report
            report = examine(gather())
    except Exception as error:  # a doctor that crashes helps nobody: say what happened, in one line
        print(f'the doctor itself failed: {type(error).__name__}: {error}; please report this')
        return 1
    print(to_json(report) if as_json else render(report))
    return 0 if report.can_train else 1


def _data(arguments: Sequence[str]) -> int:
    """The data doctor, which needs what training needs: where that is missing, the other doctor says what."""
    try:
        compat.install_ops_stand_in()
        from ...engine.detector import read_config
        from .data_command import main as look_at_data
    except ImportError as error:
        print(f'error: {error}; `python -m mmdet_iouquery.doctor` says what is missing', file=sys.stderr)
        return 2
    return look_at_data(read_config, arguments)


def _checkpoint(arguments: Sequence[str]) -> int:
    """The doctor of a checkpoint, which needs torch alone."""
    try:
        compat.allow_own_checkpoints()
        from .checkpoint import main as look_at_checkpoint
    except ImportError as error:
        print(f'error: {error}; `python -m mmdet_iouquery.doctor` says what is missing', file=sys.stderr)
        return 2
    return look_at_checkpoint(arguments)

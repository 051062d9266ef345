"""The command line of ``iouquery compare``."""

from __future__ import annotations

import argparse

from ...command_line import add_options, complete_configs
from ..train.arguments import NONE

EVALUATIONS = 5
"""Of a training of ``--iters``, where no other number is given."""
ROUNDS = 15
"""Of ``--times``, likewise."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Train several configs on the same data with the same seeds; make one table and learning curves.',
    )
    complete_configs(
        parser.add_argument('configs', nargs='*', metavar='CONFIG', help="config file, or a shipped one's name")
    )
    parser.add_argument('--work-dir', required=True, metavar='DIR', help='folder for everything that comes out')
    parser.add_argument('--seeds', nargs='+', type=int, metavar='N', help='one training each (default: 0)')
    parser.add_argument('--iters', type=int, metavar='N', help="training steps (default: each config's own schedule)")
    parser.add_argument(
        '--evaluations', type=int, metavar='N', help=f'evaluations of a training of --iters (default: {EVALUATIONS})'
    )
    parser.add_argument(
        '--data', metavar='PATH', help="a set in any form that `iouquery data` reads, in place of the configs' own"
    )
    parser.add_argument(
        '--size', type=int, metavar='PX', help='side of the square that images are resized to, or their longer side'
    )
    parser.add_argument(
        '--weights',
        choices=[NONE],
        help='none: all begin with random weights, the backbones too (default: as each config says, which may have '
        'files fetched)',
    )
    parser.add_argument('--batch', type=int, metavar='N', help='images a step; the rate goes with it')
    add_options(parser, 'overrides of every config')
    parser.add_argument(
        '--restart', action='store_true', help='train anew what was run with other settings, which is set aside'
    )
    parser.add_argument(
        '--times',
        type=int,
        nargs='?',
        const=ROUNDS,
        metavar='N',
        help='time a training step and a prediction of every config in turn, N times each, once all have trained, and '
        f'draw AP over both (without a number: {ROUNDS})',
    )
    parser.add_argument('--report-only', action='store_true', help='table and figure from the runs that are finished')
    return parser

"""The command line of ``iouquery analyze``."""

from __future__ import annotations

import argparse

from ...command_line import add_options, complete_configs


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Draw what the queries of trained detectors select, how layers refine them and where they look.',
    )
    complete_configs(
        parser.add_argument(
            'models',
            nargs='+',
            metavar='CONFIG CHECKPOINT',
            help='pairs, or work folders of trainings; several checkpoints of a config are its seeds',
        )
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the page, figures and numbers')
    parser.add_argument(
        '--names',
        nargs='+',
        metavar='NAME',
        help='one for each pair (default: the config, or the folder of a config.py)',
    )
    parser.add_argument(
        '--split', default='val', choices=['train', 'val', 'test'], help='set to look at (default: val)'
    )
    parser.add_argument(
        '--images', type=_count, default=100, metavar='N', help='images, from the first on (default: 100)'
    )
    parser.add_argument('--pictures', type=_count, default=2, metavar='N', help='images to draw (default: 2)')
    parser.add_argument(
        '--temperatures',
        nargs='+',
        type=float,
        default=[2, 20, 200, 10000],
        metavar='T',
        help='of the sine codes in the figure of positional attention (default: 2 20 200 10000)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the denoising noise (default: 0)')
    parser.add_argument('--device', help='(default: cuda where there is one, else cpu)')
    add_options(parser, 'overrides of every config')
    parser.add_argument('--restart', action='store_true', help='draw anew, over an earlier analysis in the folder')
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text}: name at least 1')
    return value

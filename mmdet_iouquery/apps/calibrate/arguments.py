"""The command line of ``iouquery calibrate``."""

from __future__ import annotations

import argparse

from ...command_line import ModelParser, add_checkpoint, add_config, add_options


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments."""
    parser = ModelParser(
        prog=prog,
        description="Fit score thresholds and a calibration of the scores to a model's validation set.",
    )
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument(
        '--out',
        default='calibration',
        metavar='PREFIX',
        help='write PREFIX.json and PREFIX.py, a config (default: calibration)',
    )
    parser.add_argument('--iou', type=_iou, default=0.5, help='overlap from which a detection is right (default: 0.5)')
    parser.add_argument('--device', help='(default: cuda where there is one, else cpu)')
    add_options(parser, 'overrides; PREFIX.py lacks them')
    parser.add_argument('--no-check', action='store_true', help='do not read the annotations before')
    parser.add_argument('--restart', action='store_true', help='fit anew, over the files of an earlier fit')
    return parser


def _iou(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f'must lie in (0, 1], got {text}')
    return value

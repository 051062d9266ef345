"""The command lines of ``iouquery quickstart`` and ``iouquery digits``."""

from __future__ import annotations

import argparse


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments of the quickstart."""
    parser = argparse.ArgumentParser(
        prog=prog, description='Train RT-DETR-R18 from scratch on a small set, evaluate it, draw it.'
    )
    parser.add_argument(
        '--data', help='your own set, in any form that `iouquery data` reads (default: handwritten digits, made here)'
    )
    parser.add_argument('--work-dir', help='folder for everything that comes out (default: work_dirs/quickstart...)')
    parser.add_argument('--iters', type=_at_least_two, default=900, help='training steps of 4 images (default: 900)')
    parser.add_argument(
        '--image-size',
        type=_at_least_two,
        default=128,
        help='images are resized to this side in pixels (default: 128)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of weights and order of the images (default: 0)')
    parser.add_argument(
        '--restart', action='store_true', help='start anew; what an earlier run left in the work folder is set aside'
    )
    return parser


def digits_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments of the set of digits."""
    from .digits import DigitsRecipe  # NumPy and Pillow, which the other command line does not need

    default = DigitsRecipe()
    parser = argparse.ArgumentParser(
        prog=prog, description='Write handwritten digits on photographs as a COCO-style set.'
    )
    parser.add_argument('root', help='folder to make, e.g. data/digits')
    parser.add_argument('--num-train', type=int, default=default.num_train, help='training images (%(default)s)')
    parser.add_argument('--num-val', type=int, default=default.num_val, help='validation images (%(default)s)')
    parser.add_argument('--image-size', type=int, default=default.image_size, help='side in px (%(default)s)')
    parser.add_argument('--seed', type=int, default=default.seed, help='seed of every random choice (%(default)s)')
    parser.add_argument('--max-overlap', type=float, default=default.max_overlap, help='of two boxes (%(default)s)')
    return parser


def _at_least_two(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f'must be a whole number from 2 on, got {text}')
    return int(text)

"""Make the small handwriting detection set: ``python tools/make_digits.py data/digits``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmdet_iouquery.apps.quickstart.digits import DigitsRecipe, build_digits
from mmdet_iouquery.engine.launch import run_tool


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    default = DigitsRecipe()
    parser = argparse.ArgumentParser(description='Write handwritten digits on photographs as a COCO-style set.')
    parser.add_argument('root', help='folder to make, e.g. data/digits')
    parser.add_argument('--num-train', type=int, default=default.num_train, help='training images (%(default)s)')
    parser.add_argument('--num-val', type=int, default=default.num_val, help='validation images (%(default)s)')
    parser.add_argument('--image-size', type=int, default=default.image_size, help='side in px (%(default)s)')
    parser.add_argument('--seed', type=int, default=default.seed, help='seed of every random choice (%(default)s)')
    parser.add_argument('--max-overlap', type=float, default=default.max_overlap, help='of two boxes (%(default)s)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = vars(parse_args(argv))
    return run_tool(lambda: build_digits(args.pop('root'), **args))


if __name__ == '__main__':
    sys.exit(main())

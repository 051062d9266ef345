"""The command line of ``tools/quantize.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ...deploy.accuracy import LabelledImages
from ...deploy.model_files import check_destination
from ...deploy.quantize import QuantizationReport, image_files, quantize


def quantize_file(arguments: Sequence[str] | None = None) -> QuantizationReport | None:
    """Write an exported file in eight bits, and say what it costs; None: that is done already.

    Raises:
        InputError: a file is missing, unfit or in the way, or a package is missing.
        AccuracyLostError: more than ``--max-drop`` of AP is lost.
    """
    args = _parser().parse_args(arguments)
    check_destination(Path(args.out))
    labelled = LabelledImages.read(args.data, args.images)
    report = quantize(
        args.model,
        args.out,
        labelled,
        samples=image_files(args.sample_images) if args.sample_images else None,
        num_samples=args.samples,
        seed=args.seed,
        max_drop=args.max_drop,
        threads=args.threads,
        force=args.force,
    )
    done = f'{args.out} is written already, from this file and these images; --force writes it anew'
    print(done if report is None else report)
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Write an exported ONNX file with backbone and neck in eight bits; measure its AP before and after.'
    )
    parser.add_argument('model', help='the .onnx file that tools/export.py wrote')
    parser.add_argument('--data', required=True, metavar='FILE.json', help='COCO annotations that AP is measured on')
    parser.add_argument('--images', required=True, metavar='DIR', help="the folder that their file_name's begin in")
    parser.add_argument(
        '-o', '--out', required=True, metavar='FILE', help='.xml for OpenVINO (with a .bin beside it), or .onnx'
    )
    parser.add_argument(
        '--sample-images',
        metavar='DIR',
        help='images that ranges of activations are measured on, best those of the training (default: --images)',
    )
    parser.add_argument('--samples', type=int, default=300, metavar='N', help='how many (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of their draw (default: %(default)s)')
    parser.add_argument(
        '--max-drop',
        type=float,
        default=0.01,
        metavar='X',
        help='of AP, from 0 to 1: where more is lost no file is left and the exit status is 1 (default: %(default)s)',
    )
    parser.add_argument('--threads', type=int, metavar='N', help='threads to use (default, and most: one a core)')
    parser.add_argument('--force', action='store_true', help='replace FILE if it exists')
    return parser

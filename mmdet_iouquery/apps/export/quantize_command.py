"""What ``iouquery quantize`` runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ...deploy.accuracy import LabelledImages
from ...deploy.model_files import check_destination
from ...deploy.quantize import QuantizationReport, image_files, quantize
from .arguments import quantize_parser


def quantize_file(arguments: Sequence[str] | None = None) -> QuantizationReport | None:
    """What :func:`execute` does, with the arguments of a command line."""
    return execute(quantize_parser().parse_args(arguments))


def execute(args: argparse.Namespace) -> QuantizationReport | None:
    """Write an exported file in eight bits, and say what it costs; None: that is done already.

    Raises:
        InputError: a file is missing, unfit or in the way, or a package is missing.
        AccuracyLostError: more than ``--max-drop`` of AP is lost.
    """
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

"""The command line of ``iouquery evaluate``."""

from __future__ import annotations

import argparse


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="COCO's twelve numbers and each class's AP of detections, by the evaluator of `iouquery test`.",
    )
    parser.add_argument(
        'found', metavar='OUT', help='the folder of a job of `iouquery predict`, or a COCO results file'
    )
    parser.add_argument('annotations', help='the annotation file')
    parser.add_argument(
        '--json', action='store_true', help='print the numbers as JSON, and all else to the standard error'
    )
    return parser

"""The command line of ``tools/eval_coco.py``."""

from __future__ import annotations

import argparse


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="COCO's twelve numbers and each class's AP of detections, by the evaluator of tools/test.py.",
    )
    parser.add_argument('found', metavar='OUT', help='the folder of a job of tools/predict.py, or a COCO results file')
    parser.add_argument('annotations', help='the annotation file')
    parser.add_argument(
        '--json', action='store_true', help='print the numbers as JSON, and all else to the standard error'
    )
    return parser

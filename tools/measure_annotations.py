"""Measure what reading large annotation files costs: ``python tools/measure_annotations.py``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.benchmark.annotation_cost import (
    OBJECTS365_BOXES,
    OBJECTS365_CLASSES,
    OBJECTS365_IMAGES,
    STAGES,
    ReadingCost,
    measure,
    per_million,
    write_synthetic,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Seconds and memory of reading made-up annotations, and their slopes.')
    parser.add_argument('--images', type=int, nargs='+', default=[20000, 40000, 80000], help='sizes (%(default)s)')
    parser.add_argument('--classes', type=int, default=OBJECTS365_CLASSES, help='(%(default)s, as Objects365)')
    parser.add_argument('--boxes', type=float, default=OBJECTS365_BOXES, help='an image, on average (%(default)s)')
    parser.add_argument('--target', type=int, default=OBJECTS365_IMAGES, help='images to extrapolate to (%(default)s)')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    print(f'{"images":>9}  {"stage":42} {"seconds":>8} {"peak MB":>8} {"held MB":>8} {"a worker MB":>12}')
    costs: dict[str, list[ReadingCost]] = {stage: [] for stage in STAGES}
    with tempfile.TemporaryDirectory() as folder:
        for images in args.images:
            path = Path(folder) / f'{images}.json'
            write_synthetic(path, images, num_classes=args.classes, boxes_per_image=args.boxes)
            for stage in STAGES:
                costs[stage].append(measure(path, stage, args.classes))
                _row(images, stage, costs[stage][-1])
            path.unlink()
    if len(set(args.images)) > 1:
        for stage, readings in costs.items():
            _row(args.target, stage, per_million(args.images, readings), args.target / 1e6, ' (slope x images)')


def _row(images: int, stage: str, cost: ReadingCost, factor: float = 1.0, note: str = '') -> None:
    values = [factor * value for value in (cost.seconds, cost.peak, cost.held, cost.worker)]
    print(
        f'{images:9}  {STAGES[stage]:42} {values[0]:8.1f} {values[1]:8.0f} {values[2]:8.0f} {values[3]:12.0f}{note}',
        flush=True,
    )


if __name__ == '__main__':
    args = parse_args()
    from mmdet_iouquery.engine.launch import run_tool  # which imports mmdet

    raise SystemExit(run_tool(lambda: main(args)))

"""What ``iouquery data`` does: a set in any usual form made COCO and checked, and an account of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import Any

from .coco_files import NOTE
from .coco_set import CocoSet
from .conversion import Data, check_splits, find_data


def convert_data(args: argparse.Namespace) -> None:
    """Read, write and check a set; what was understood is printed, as JSON where that is asked for.

    Args:
        args: what :func:`~mmdet_iouquery.apps.data.arguments.parser` gives.

    Raises:
        InputError: as :func:`~mmdet_iouquery.read_data`.
    """
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        data = find_data(args.path, out=args.out, seed=args.seed)
        report = data.report or _of_coco(data)
    if args.json:
        print(json.dumps({**report, 'coco': _paths(data.coco)}, indent=1, ensure_ascii=False))


def _of_coco(data: Data) -> dict[str, Any]:
    """The account of a set that is COCO already; it is checked and printed."""
    coco = data.coco
    splits = {'train': (coco.train_ann, coco.train_images), 'val': (coco.val_ann, coco.val_images)}
    split = (coco.train_ann.parent / NOTE).is_file()
    print(f'COCO, {"split in two, otherwise " if split else ""}taken as it is', *data.remarks, sep='\n  ')
    reports = check_splits(splits, coco.classes)
    for report in reports:
        print(report)
    return {
        'form': 'COCO',
        'source': str(coco.train_ann),
        'classes': list(coco.classes),
        'parts': {
            report.where: {
                'images': report.images,
                'without_objects': report.images_without_boxes,
                'boxes': sum(report.class_counts.values()) + report.crowd,
                'crowds': report.crowd,
                'boxes_by_class': report.class_counts,
                'file': str(report.ann_file),
            }
            for report in reports
        },
        'drawn_with_seed': None,
        'left_out': [],
        'changed': [],
        'remarks': list(data.remarks),
        'warnings': [f'{report.where}: {warning}' for report in reports for warning in report.warnings],
    }


def _paths(coco: CocoSet) -> dict[str, str]:
    return {name: str(value) for name, value in vars(coco).items() if name != 'classes'}

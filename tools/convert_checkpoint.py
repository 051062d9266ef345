"""Convert a checkpoint of the authors' or Hugging Face's RT-DETR or D-FINE to this package's names, or back."""

from __future__ import annotations

import argparse
import sys

from mmdet_iouquery.checkpoints import SOURCES, TARGETS
from mmdet_iouquery.checkpoints.class_names import parse_class_names
from mmdet_iouquery.checkpoints.convert_file import convert_file
from mmdet_iouquery.engine.detector import read_config
from mmdet_iouquery.engine.launch import run_tool


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='.pth, .pt or .safetensors file, or a Hugging Face folder')
    parser.add_argument('dst', help='.pth or .pt file to write; with --to transformers, a folder')
    parser.add_argument(
        '--source',
        required=True,
        choices=SOURCES,
        help="whose names SRC has; mmdet: this package's own, as mmdet saves them",
    )
    parser.add_argument(
        '--to', '--target', default='mmdet', choices=TARGETS, help='whose names DST gets (default: mmdet)'
    )
    parser.add_argument(
        '--config',
        help="of the detector, a file or the name of one that came with the package: 'rtdetr/...py'; for "
        '--to transformers, whose folder describes the model',
    )
    parser.add_argument('--classes', help='classes to write weights for, like --source-classes, which it needs')
    parser.add_argument(
        '--source-classes',
        help='classes of SRC in the order of its rows: coco, objects365, objects365-by-id (with a row 0 for no class, '
        'as the authors of D-FINE and DEIM train), a,b,c or FILE.json (COCO annotations, or a list of names)',
    )
    parser.add_argument('--force', action='store_true', help='replace DST if it exists')
    return parser.parse_args(arguments)


def convert(args: argparse.Namespace) -> None:
    """Convert, and say what was done."""
    summary = convert_file(
        args.src,
        args.dst,
        args.source,
        target=args.to,
        source_classes=parse_class_names(args.source_classes) if args.source_classes is not None else None,
        target_classes=parse_class_names(args.classes) if args.classes is not None else None,
        config=None if args.config is None else read_config(args.config),
        force=args.force,
    )
    print(summary or f'{args.dst} holds this conversion of {args.src} already; nothing to do')


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit status, 2 for input that a person can mend."""
    args = parse_args(arguments)
    return run_tool(lambda: convert(args))


if __name__ == '__main__':
    sys.exit(main())

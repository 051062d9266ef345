"""The command lines of ``iouquery convert`` and ``iouquery hub``."""

from __future__ import annotations

import argparse
from typing import Any

from ...choices import SOURCES, TARGETS
from ...command_line import ModelSubparser, add_checkpoint, add_config, check_file


def convert_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments of a conversion."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Convert a checkpoint of the authors' or Hugging Face's RT-DETR or D-FINE to this package's names, "
        'or back.',
    )
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
    parser.add_argument('--classes', help='classes to write weights for, named like --source-classes')
    parser.add_argument(
        '--source-classes',
        help='classes of SRC in the order of its rows, where it does not name them: coco, objects365, '
        'objects365-by-id (with a row 0 for no class, as the authors of D-FINE and DEIM train), a,b,c or FILE.json '
        '(COCO annotations, or a list of names)',
    )
    parser.add_argument('--force', action='store_true', help='replace DST if it exists')
    return parser


def check_source(args: argparse.Namespace) -> None:
    """Whether there is what a conversion reads.

    Raises:
        InputError: there is not.
    """
    check_file(args.src)


def hub_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments of sharing: of ``save``, or of ``push``, as ``action``."""
    parser = argparse.ArgumentParser(
        prog=prog, description='Write a detector as a folder to share, and send that to the Hugging Face Hub.'
    )
    actions = parser.add_subparsers(dest='action', required=True, parser_class=ModelSubparser)
    _save(actions)
    push = actions.add_parser('push', help='send such a folder; log in before, by `hf auth login` or HF_TOKEN')
    push.add_argument('folder')
    push.add_argument('repo', help='USER/NAME; made where it is missing')
    push.add_argument('--private', action='store_true', default=None, help='of a new repository')
    push.add_argument('--force', action='store_true', help='go on where the repository holds other weights')
    return parser


def _save(actions: Any) -> None:
    save = actions.add_parser('save', help='write a folder: config.py, model.safetensors, README.md')
    add_config(save)
    add_checkpoint(save)
    save.add_argument('folder', help='to write; it is named last')
    save.add_argument(
        '--license',
        required=True,
        help='of the weights, an identifier of the Hub: apache-2.0, mit, cc-by-4.0, agpl-3.0, other, ...',
    )
    save.add_argument('--metrics', metavar='FILE', help='PREFIX.metrics.json of `iouquery test --out PREFIX`')
    save.add_argument('--command', help='what the metrics were measured by, as it was typed')
    save.add_argument(
        '--onnx', metavar='FILE', help='the model that `iouquery export` wrote of CHECKPOINT, to lie beside'
    )
    save.add_argument('--force', action='store_true', help='replace files of another model')

"""Arguments that several commands have, and the command lines of training and testing. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any


class KeyValue(argparse.Action):
    """Gathers words KEY=VALUE as texts by their keys; :func:`.config_options.read_options` reads their values."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None) -> None:
        """Take ``values``; leaves with status 2 where one is no pair."""
        texts = dict(getattr(namespace, self.dest, None) or {})
        for word in values:
            key, sign, text = word.partition('=')
            if not sign:
                parser.error(f'{option}: {word!r} is no KEY=VALUE, such as train_dataloader.batch_size=4')
            texts[key] = text
        setattr(namespace, self.dest, texts)


def add_config(parser: argparse.ArgumentParser) -> None:
    """The argument ``config``."""
    parser.add_argument('config', help="config file, or the name of one that came with the package: 'rtdetr/...py'")


def add_options(parser: argparse.ArgumentParser, text: str) -> None:
    """``--cfg-options``, with its help."""
    parser.add_argument('--cfg-options', nargs='+', action=KeyValue, metavar='KEY=VALUE', help=text)


def common_parser(description: str, prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments that training and testing share; they are mmdet's."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    add_config(parser)
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/CONFIG)')
    add_options(parser, 'overrides of the config, such as train_dataloader.batch_size=4')
    parser.add_argument(
        '--no-check',
        action='store_true',
        help='do not read the annotations before, nor try a step and an evaluation; for a large set that passed once',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def train_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The command line of training."""
    parser = common_parser('Train a detector.', prog)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or without a path from the newest whole one of the work folder, whatever the '
        'settings; without --resume this happens where the folder holds a run of the same settings',
    )
    parser.add_argument(
        '--restart', action='store_true', help='start anew; what an earlier run left in the work folder is set aside'
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='float16',
        choices=['float16', 'bfloat16'],
        help='mixed precision: float16 (CUDA only; the default), or bfloat16 (anywhere, without loss scaling)',
    )
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the rate to the real batch size')
    parser.add_argument(
        '--dry-run',
        nargs='?',
        type=int,
        const=100,
        metavar='BOXES',
        help='run the largest step there can be, with so many boxes an image (default 100), say its memory, and end',
    )
    return parser


def test_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The command line of testing."""
    parser = common_parser('Test a detector: COCO AP of a checkpoint, or of a file that was exported from one.', prog)
    parser.add_argument('checkpoint', help='a checkpoint; or an exported .onnx or .xml file')
    parser.add_argument(
        '--out', metavar='PREFIX', help='also write PREFIX.bbox.json (COCO results) and PREFIX.metrics.json'
    )
    parser.add_argument(
        '--dtype',
        choices=['float32', 'float16', 'bfloat16'],
        default='float32',
        help='cast the weights (default: float32); half precision is for RT-DETR and its parts, not all of mmdet; of '
        'exported files bfloat16, with OpenVINO',
    )
    parser.add_argument(
        '--prepare', action='store_true', help='test what prepare_for_inference makes of the detector, in --dtype'
    )
    return parser

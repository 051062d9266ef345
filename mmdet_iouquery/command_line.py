"""Arguments that several commands have, and the command lines of training and testing. Imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .config_files import config_path
from .errors import InputError

CONFIG_FUNCTION = '_iouquery_configs'
"""Name of the shell's function that completes configs, see ``apps/completion.py``."""


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


class ModelParser(argparse.ArgumentParser):
    """Takes positional arguments wherever they stand among the options, although the last may be left out."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever, see ``parse_intermixed_args``."""
        return self.parse_intermixed_args(args, namespace)


class ModelSubparser(ModelParser):
    """The same for an action of a command, whose parser argparse calls in another way."""

    _is_within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ever, see ``parse_known_intermixed_args``, which comes back here."""
        if self._is_within:
            return super().parse_known_args(args, namespace)
        self._is_within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_within = False


def add_config(parser: argparse.ArgumentParser) -> None:
    """The argument ``config``."""
    text = "config file, or the name of one that came with the package: 'rtdetr_r18vd' or 'rtdetr/...py'"
    complete_configs(parser.add_argument('config', help=text))


def check_config(args: argparse.Namespace) -> None:
    """Whether there is the config, or the folder that stands for one, and the checkpoint, where one is named.

    Raises:
        InputError: there is neither, nor a shipped one of that name; there is no such file, and it is no address.
    """
    if not Path(args.config).exists():
        config_path(args.config)
    if getattr(args, 'checkpoint', None) is not None:
        check_file(args.checkpoint)


def check_file(path: str) -> None:
    """Whether there is a file or folder.

    Raises:
        InputError: there is none, and ``path`` is no address either.
    """
    if '://' not in path and not Path(path).expanduser().exists():
        raise InputError(f'there is no file {path}; correct the path')


def complete_configs(action: argparse.Action) -> None:
    """Have shells complete an argument with names of configs, and files; ``complete`` is what shtab looks at."""
    action.complete = dict.fromkeys(('bash', 'zsh'), CONFIG_FUNCTION)  # type: ignore[attr-defined]


def add_checkpoint(parser: argparse.ArgumentParser, text: str = 'of the model') -> None:
    """The argument ``checkpoint``, without which ``config`` is a folder of a training; for a :class:`ModelParser`."""
    folder = 'leave it out, and CONFIG is the work folder of a training: its config and best or newest checkpoint'
    files = {'bash': '_shtab_compgen_files', 'zsh': '_files'}
    parser.add_argument('checkpoint', nargs='?', help=f'{text}; {folder}').complete = files  # type: ignore[attr-defined]


def named_files(args: argparse.Namespace) -> list[str]:
    """What a command line names of a model: config and checkpoint, or a folder alone."""
    return [args.config] if args.checkpoint is None else [args.config, args.checkpoint]


def add_options(parser: argparse.ArgumentParser, text: str) -> None:
    """``--cfg-options``, with its help."""
    parser.add_argument('--cfg-options', nargs='+', action=KeyValue, metavar='KEY=VALUE', help=text)


def common_parser(description: str, prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments that training and testing share; they are mmdet's."""
    parser = ModelParser(prog=prog, description=description)
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


def training_parser(prog: str | None = None) -> argparse.ArgumentParser:
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
        '--log', metavar='NAMES', help='also log to csv, tensorboard, mlflow, wandb: one, or some (a,b)'
    )
    parser.add_argument(
        '--dry-run',
        nargs='?',
        type=int,
        const=100,
        metavar='BOXES',
        help='run the largest step there can be, with so many boxes an image (default 100), say its memory, and end',
    )
    return parser


def evaluation_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The command line of testing."""
    parser = common_parser('Test a detector: COCO AP of a checkpoint, or of a file that was exported from one.', prog)
    add_checkpoint(parser, 'or an exported .onnx or .xml file')
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
    parser.add_argument(
        '--json', action='store_true', help='print the numbers as JSON, and all else to the standard error'
    )
    return parser

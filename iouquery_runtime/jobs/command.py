"""``python -m iouquery_runtime.jobs``: detections for as many images as there are."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..command import Terminated, sigterm_raises
from ..errors import InputError, optional

if TYPE_CHECKING:
    from .predict import Request
    from .worker import Opener

BATCH_SIZE = 8


def parser(prog: str, **model: Any) -> argparse.ArgumentParser:
    """The command line; ``model`` describes its first argument."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Detections of many images in parquet files. Called again with --resume it does what is missing. '
        'The exit status is 2 where images could not be read.',
    )
    add = parser.add_argument
    add('model', **model)
    add(
        '--images',
        required=True,
        help='a folder, a pattern in quotes, a manifest (.parquet with a column path, maybe id), an annotation file '
        '(.json), or a URI of such, as s3://BUCKET/FOLDER',
    )
    add('-o', '--out', required=True, metavar='OUT', help="the job's folder: job.json, parts/, coco.json, results.json")
    add('--root', metavar='DIR', help='where paths in a manifest or annotation file begin (its own folder)')
    add('--format', default='parquet', metavar='F[,F]', help='parquet, coco or both; parts are always parquet')
    add('--shard', metavar='I/N', help='one of N parts of the images, I from 0; each has its own OUT')
    add('--score-thr', type=float, metavar='X', help='write what scores above X, in [0, 1) (that of the model)')
    add('--batch-size', type=int, default=BATCH_SIZE, metavar='N', help=f'images at once ({BATCH_SIZE})')
    add('--workers', type=int, metavar='N', help='processes with the model (as many as CPUs, or GPUs)')
    add('--threads', type=int, default=1, metavar='N', help='CPUs of each worker (1)')
    add('--gpus-per-worker', type=int, default=0, choices=(0, 1), help='1: workers on GPUs, reading on CPUs (0)')
    add('--address', metavar='HOST:PORT', help='of a cluster of Ray, or auto; without it, this machine alone')
    add('--resume', action='store_true', help='do what is missing of a job that was stopped')
    add('--on-error', choices=('skip', 'stop'), default='skip', help='at an image that cannot be read (skip)')
    add('--dry-run', action='store_true', help='say how many images, workers and how much memory; write nothing')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line for an exported file."""
    args = parser('python -m iouquery_runtime.jobs', help='an .onnx file, or an .xml file of OpenVINO').parse_args(argv)

    def opener() -> Opener:
        from .worker import ExportedOpener

        gpu = bool(args.gpus_per_worker)
        return ExportedOpener(args.model, score_thr=args.score_thr, threads=args.threads, gpu=gpu)

    return run(args, opener)


def run(args: argparse.Namespace, opener: Callable[[], Opener]) -> int:
    """Do what the arguments of :func:`parser` say, and give the exit status; what went wrong is said in a sentence."""
    return ended(lambda: _run(args, opener))


def ended(job: Callable[[], int]) -> int:
    """The exit status of a job, with a sentence where it is not done."""
    try:
        with sigterm_raises():
            return job()
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.status
    except (KeyboardInterrupt, Terminated) as stop:
        signum = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        print(f'stopped by {signum.name}; {stop or "nothing was detected yet"}', file=sys.stderr)
        return 128 + signum


def _run(args: argparse.Namespace, opener: Callable[[], Opener]) -> int:
    for module in ('pyarrow', 'tqdm', 'ray'):
        optional(module, 'detecting at scale', "'mmdet-iouquery[scale]'")
    from .predict import dry_run, predict

    request = _request(args)
    if args.dry_run:
        dry_run(request, opener())
        return 0
    return predict(request, opener())


def _request(args: argparse.Namespace) -> Request:
    from .engine import Size
    from .manifest import Shard
    from .predict import FORMATS, Request

    for name in ('workers', 'threads', 'batch_size'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f'--{name.replace("_", "-")} {value}: name at least 1')
    formats = args.format.split(',')
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise InputError(f'--format {args.format}: name {" or ".join(FORMATS)}, or both with a comma between')
    return Request(
        images=args.images,
        out=Path(args.out),
        root=args.root,
        shard=None if args.shard is None else Shard.parse(args.shard),
        formats=formats,
        size=Size(args.workers or 0, args.threads, args.gpus_per_worker, args.batch_size),
        address=args.address,
        resume=args.resume,
        on_error=args.on_error,
    )

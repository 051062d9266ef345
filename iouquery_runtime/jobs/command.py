"""``python -m iouquery_runtime.jobs``: detections for as many images as there are."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..command import Terminated, sigterm_raises
from ..errors import InputError, optional
from .arguments import parser

if TYPE_CHECKING:
    from .predict import Request
    from .worker import Opener


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
        print(f'stopped by {signum.name}; {str(stop) or "nothing was detected yet"}', file=sys.stderr)
        return 128 + signum


def _run(args: argparse.Namespace, opener: Callable[[], Opener]) -> int:
    for module in ('pyarrow', 'tqdm'):
        optional(module, 'detecting at scale', "'mmdet-iouquery[scale]'")
    from .engine import load_ray
    from .predict import dry_run, predict

    load_ray()

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

"""The command line of ``python -m iouquery_runtime.jobs``, of the standard library alone."""

from __future__ import annotations

import argparse
from typing import Any

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
    own = 'its own folder, or its info.image_folder'
    add('--root', metavar='DIR', help=f'where paths in a manifest or annotation file begin ({own})')
    add('--format', default='parquet', metavar='F[,F]', help='parquet, coco or both; parts are always parquet')
    add('--shard', metavar='I/N', help='one of N parts of the images, I from 0; each has its own OUT')
    add('--score-thr', type=float, metavar='X', help='write what scores above X, in [0, 1) (that of the model)')
    add('--batch-size', type=int, default=BATCH_SIZE, metavar='N', help=f'images at once ({BATCH_SIZE})')
    add('--workers', type=int, metavar='N', help='processes with the model (as many as CPUs, or GPUs)')
    add('--threads', type=int, default=1, metavar='N', help='CPUs of each worker (1)')
    add('--gpus-per-worker', type=int, default=0, choices=(0, 1), help='1: workers on GPUs, reading on CPUs (0)')
    add('--address', metavar='HOST:PORT', help='of a cluster of Ray, or auto; without it, this machine alone')
    resume = 'do what is missing of a job that was stopped; of a finished one, try unreadable images again'
    add('--resume', action='store_true', help=resume)
    add('--on-error', choices=('skip', 'stop'), default='skip', help='at an image that cannot be read (skip)')
    add('--dry-run', action='store_true', help='say how many images, workers and how much memory; write nothing')
    return parser

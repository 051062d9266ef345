"""What ``iouquery evaluate`` runs."""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from iouquery_runtime.errors import optional
from iouquery_runtime.jobs.coco import write_results

from ...datasets.coco.json_file import CocoFile, read_coco, read_json
from ...engine.launch import as_json
from ...errors import InputError
from ...evaluation import FastCocoMetric
from .arguments import parser

NUMBERS = (
    *('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'),
    *('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000'),
)
"""COCO's twelve, by mmdet's names."""
_CLASS = '_precision'
"""What mmdet appends to a class's name in the numbers that it gives."""


class DetectionFile(NamedTuple):
    """Detections to be evaluated."""

    results: Path
    """A COCO results list."""
    classes: tuple[str, ...]
    """Names of those that are evaluated."""
    about: str
    """What is said of the images."""


def evaluate(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """What :func:`execute` does, with the arguments of a command line."""
    return execute(parser().parse_args(arguments))


def execute(args: argparse.Namespace) -> dict[str, float]:
    """Print COCO's twelve numbers of detections, and each class's AP.

    Returns:
        The numbers by the names that ``iouquery test`` gives them, ``coco/`` in front.

    Raises:
        InputError: a file is missing or of another form; images or classes are not those of the annotation file; a job
            that is not finished; no detections.
    """
    with redirect_stdout(sys.stderr) if args.json else nullcontext():
        metrics = _evaluated(args)
    if args.json:
        print(as_json(metrics))
    return metrics


def _evaluated(args: argparse.Namespace) -> dict[str, float]:
    truth = read_coco(args.annotations)
    given = Path(args.found)
    if not given.exists():
        raise InputError(f'there is no folder or file {given}; correct the path')
    with _of_job(given, truth) if given.is_dir() else _of_results(given, truth) as detections:
        metric = _MetricOfFile(detections, str(truth.path))
        with redirect_stdout(io.StringIO()):  # pycocotools' own lines
            metrics = {f'coco/{name}': value for name, value in metric.compute_metrics([({}, {})]).items()}
    print(detections.about)
    print(f'boxes are evaluated by {metric.backend}')
    print(table(metrics))
    return metrics


def table(metrics: dict[str, float]) -> str:
    """The twelve numbers, then each class's AP, for a person to read."""
    numbers = {name: metrics[f'coco/bbox_{name}'] for name in NUMBERS}
    classes = {key[len('coco/') : -len(_CLASS)]: value for key, value in metrics.items() if key.endswith(_CLASS)}
    width = max(map(len, [*numbers, *classes]))
    lines = [f'{name:<{width}}  {value:6.3f}' for name, value in [*numbers.items(), ('', 0.0), *classes.items()]]
    lines[len(numbers)] = f'\n{"class":<{width}}  {"AP":>6}'
    return '\n'.join(lines)


class _MetricOfFile(FastCocoMetric):
    """mmdet's metric over detections that are in a file already."""

    def __init__(self, detections: DetectionFile, ann_file: str) -> None:
        with redirect_stdout(io.StringIO()):
            super().__init__(ann_file, metric='bbox', classwise=True, metric_items=[*NUMBERS])
        self.dataset_meta = dict(classes=detections.classes)
        self._results = detections.results

    def results2json(self, results: Sequence[dict[str, Any]], outfile_prefix: str) -> dict[str, str]:  # noqa: ARG002
        """By kind of result, the file; mmdet's method, which writes it."""
        return {'bbox': str(self._results)}


@contextmanager
def _of_results(path: Path, truth: CocoFile) -> Iterator[DetectionFile]:
    """The entries of a COCO results file, checked."""
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(
            f"{path} holds no list of COCO results; name first the detections (a job's folder, or a list of objects "
            'with image_id, category_id, bbox and score), then the annotation file'
        )
    wrong = next((number for number, entry in enumerate(entries) if not _is_result(entry)), None)
    if wrong is not None:
        raise InputError(
            f'{path}: entry {wrong} of the list is no COCO result; write image_id, category_id, score and bbox = [x, '
            'y, width, height]'
        )
    _check_ids(path, 'image', [entry['image_id'] for entry in entries], truth)
    _check_ids(path, 'category', [entry['category_id'] for entry in entries], truth)
    _check_some(path, len(entries))
    images = len({entry['image_id'] for entry in entries})
    about = f'{len(entries)} detections in {images} of {len(truth.images)} images'
    with tempfile.TemporaryDirectory() as folder:  # mmdet reads files by their endings
        copied = Path(folder) / 'results.json'
        copied.write_text(json.dumps(entries), encoding='utf-8')
        yield DetectionFile(copied, truth.classes, about)


@contextmanager
def _of_job(out: Path, truth: CocoFile) -> Iterator[DetectionFile]:
    """The rows of a finished job, as a results list in a temporary folder."""
    _check_finished(out)
    parquet = optional('pyarrow.parquet', f'reading {out}', 'pyarrow')
    parts = sorted((out / 'parts').glob('*.parquet'))
    if not parts:
        raise InputError(f'{out} holds no parts; name the folder that `iouquery predict` wrote to')
    names = json.loads(parquet.read_schema(parts[0]).metadata[b'names'])
    category_ids = _category_ids(out, names, truth)
    ids: list[int] = []
    faults: list[str] = []
    detections = 0
    for path in parts:
        rows = parquet.read_table(path, columns=['id', 'error', 'labels'])
        ids += rows['id'].to_pylist()
        faults += rows['error'].drop_null().to_pylist()
        detections += sum(len(chunk.flatten()) for chunk in rows['labels'].chunks)
    _check_ids(out, 'image', ids, truth)
    missing = {image['id'] for image in truth.images}.difference(ids)
    if missing:
        raise InputError(
            f'{out} has no rows for {len(missing)} of the {len(truth.images)} images of {truth.path}, such as id '
            f'{min(missing)}; run the job on this file: --images {truth.path}'
        )
    if len(faults) == len(ids):
        raise InputError(
            f'none of the {len(ids)} images of {out} could be read, so there is no AP; the first: {faults[0]}; detect '
            'again into another folder, with --root where the images lie elsewhere'
        )
    _check_some(out, detections)
    others = [category['name'] for category in truth.categories if category['name'] not in names]
    passed_over = f'; classes of the file that the job does not know: {", ".join(others)}' if others else ''
    unread = f', of which {len(faults)} could not be read and count as images without detections' if faults else ''
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / 'results.json'
        tables = (parquet.read_table(path) for path in parts)
        write_results(tables, results, names=names, category_ids=category_ids)
        yield DetectionFile(results, tuple(names), f'{detections} detections in {len(ids)} images{unread}{passed_over}')


def _is_result(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get('bbox'), list) or len(entry['bbox']) != 4:
        return False
    numbers = [*entry['bbox'], entry.get('score')]
    ids = [entry.get('image_id'), entry.get('category_id')]
    return all(isinstance(x, (int, float)) for x in numbers) and all(isinstance(x, (int, float, str)) for x in ids)


def _check_finished(out: Path) -> None:
    note = out / 'job.json'
    if not note.is_file():
        raise InputError(f'{out} holds no job.json; name a folder that `iouquery predict` wrote to, or a results file')
    job = read_json(note)
    if not isinstance(job, dict) or job.get('state') != 'finished':
        raise InputError(f'the job in {out} is not finished; call `iouquery predict` again with --resume')


def _category_ids(out: Path, names: Sequence[str], truth: CocoFile) -> list[int]:
    """By label, of the categories of the same names."""
    ids = {category['name']: category['id'] for category in truth.categories}
    unknown = [name for name in names if name not in ids]
    if unknown:
        raise InputError(
            f'{out} has detections of the class {unknown[0]!r}, which {truth.path} does not name ({", ".join(ids)}); '
            f'{len(unknown)} of {len(names)} classes differ; name an annotation file of the same classes'
        )
    return [ids[name] for name in names]


def _check_ids(path: Path, kind: str, ids: Sequence[Any], truth: CocoFile) -> None:
    records = truth.images if kind == 'image' else truth.categories
    unknown = {*ids}.difference(record['id'] for record in records)
    if unknown:
        raise InputError(
            f'{path} has {len(unknown)} {kind} ids that {truth.path} lacks, such as {min(unknown, key=str)!r}; name '
            'the annotation file whose images were detected'
        )


def _check_some(path: Path, detections: int) -> None:
    if not detections:
        raise InputError(
            f'{path} holds no detections, so there is no AP; detect with --score-thr 0, as AP needs those of low '
            'scores too'
        )

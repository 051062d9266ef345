"""What ``iouquery benchmark`` runs."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ...config_options import as_list
from ...engine.work_dir import check_writable
from ...errors import InputError
from ...file_io import write_text
from ..analyze.chart import save_chart
from ..timing import rows_of, time_in_turn
from .arguments import FAMILY_OF, parser
from .attention import attention
from .criterion import criterion, criterion_config
from .data import data_case, one_core, shares
from .evaluation import evaluation_case
from .figures import growth_chart
from .inference import inference
from .leave_one_out import leave_one_out, leave_one_out_of_prediction
from .machine import machine
from .reference import Reference
from .training import training

Rows = list[dict[str, Any]]
_LEAST = {'rounds': 1, 'threads': 1, 'side': 32, 'batches': 1, 'objects': 0, 'counts': 1, 'workers': 1, 'pictures': 1}
_MEASURED = ('median_s', 'low_s', 'high_s')


def benchmark(arguments: Sequence[str] | None = None) -> None:
    """What :func:`execute` does, with the arguments of a command line."""
    execute(parser().parse_args(arguments))


def execute(args: argparse.Namespace) -> None:
    """Measure one subject and write it down."""
    for name, least in _LEAST.items():
        for value in as_list(getattr(args, name)):
            if value is not None and value < least:
                raise InputError(f'--{name} {value}: name at least {least}')
    if args.out:
        _check_destination(Path(args.out))
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    args.models = args.models or [f'R{depth}' for depth in args.depths]
    reference = _reference(args.reference, args.models) if args.reference else None
    rows = _SUBJECTS[args.subject](args, reference)
    print(table(rows))
    if not args.out:
        return
    report = {
        'subject': args.subject,
        'date': datetime.date.today().isoformat(),
        'machine': machine(),
        'rounds': args.rounds,
        'rows': rows,
    }
    path = Path(args.out)
    write_text(path, json.dumps(report, indent=1) + '\n')
    print(f'written: {path}')
    if any(row.get('varied', 'standard') != 'standard' for row in rows):
        written = save_chart(growth_chart(f'{path.stem}-growth', rows), path.parent)
        print(f'drawn: {written[0]}')


def _check_destination(path: Path) -> None:
    """Raise InputError where the report could not be written, or would be written over something else."""
    if path.is_dir() or (path.is_file() and not _is_report(path)):
        raise InputError(f'--out {path} is there, and is no report of `iouquery benchmark`; name another file')
    check_writable(path.parent, option='--out')


def _is_report(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError:
        return False
    return isinstance(content, dict) and {'subject', 'rows'} <= content.keys()


def _reference(folder: str, models: Sequence[str]) -> Reference:
    families = {FAMILY_OF[name] for name in models}
    if len(families) > 1:
        raise InputError(
            f'--reference has one family of models, and --models {" ".join(models)} are of several; name models of one '
            'family'
        )
    return Reference(folder, *families)


def _inference(args: argparse.Namespace, reference: Reference | None) -> Rows:
    settings = dict(model_names=args.models, batches=args.batches or [1], side=args.side, rounds=args.rounds)
    return inference(reference, compiled=args.compile, **settings)


def _training(args: argparse.Namespace, reference: Reference | None) -> Rows:
    settings = dict(side=args.side, objects=args.objects, rounds=args.rounds)
    rows: Rows = []
    for model, batch in itertools.product(args.models, args.batches or [2]):
        rows += training(reference, model_name=model, batch=batch, **settings)
    return rows


def _leave_one_out(args: argparse.Namespace, reference: Reference | None) -> Rows:
    settings = dict(side=args.side, objects=args.objects, rounds=args.rounds, half=args.bfloat16)
    rows: Rows = []
    if args.prediction:
        if args.bfloat16 or reference is not None:
            raise InputError('--prediction times ours in single precision alone; leave --bfloat16 and --reference out')
        for model, batch in itertools.product(args.models, args.batches or [1]):
            rows += leave_one_out_of_prediction(model_name=model, batch=batch, side=args.side, rounds=args.rounds)
        return rows
    for model, batch in itertools.product(args.models, args.batches or [2]):
        rows += leave_one_out(reference, model_name=model, batch=batch, **settings)
    return rows


def _criterion(args: argparse.Namespace, reference: Reference | None) -> Rows:
    of_each = {str(criterion_config(name)): name for name in reversed(args.models)}  # depths of a ResNet share one
    models = [name for name in args.models if name in of_each.values()]
    if args.growth and len(models) > 1:
        raise InputError(f'--growth draws one criterion, and --models {" ".join(models)} have several; name one model')
    rows: Rows = []
    for model in models:
        rows += criterion(reference, model_name=model, rounds=args.rounds, growth=args.growth)
    return rows


def _deployed(args: argparse.Namespace, reference: Reference | None) -> Rows:
    for package in ('onnx', 'onnxslim', 'onnxruntime', 'openvino', 'nncf'):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"deploy needs {package}: python -m pip install 'mmdet-iouquery[export,openvino,quantize]'"
            )
    from .deployed import deployed

    settings = dict(model_names=args.models, batches=args.batches or [1, 4], side=args.side, rounds=args.rounds)
    return deployed(reference, **settings)


def _scale(args: argparse.Namespace, reference: Reference | None) -> Rows:
    for package in ('onnx', 'onnxslim', 'onnxruntime', 'pyarrow', 'ray'):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"scale needs {package}: python -m pip install 'mmdet-iouquery[export,scale]'")
    from .scale import scale

    settings = dict(model_names=args.models, side=args.side, rounds=args.rounds)
    return scale(batch=(args.batches or [8])[0], counts=args.counts, workers=args.workers, **settings)


def _attention(args: argparse.Namespace, reference: Reference | None) -> Rows:
    return attention(batches=args.batches or [1, 4], queries=300, side=args.side, rounds=args.rounds)


def _data(args: argparse.Namespace, reference: Reference | None) -> Rows:
    images = args.pictures or 64
    sides = data_case(images)
    with one_core():
        rows = rows_of(time_in_turn(sides, args.rounds), "mmdet's transforms", images=images)
    for row in rows:
        row['pictures_per_s'] = images / row['median_s']
    return rows + [{'transform': name, 'share': share} for name, share in shares(images).items()]


def _evaluation(args: argparse.Namespace, reference: Reference | None) -> Rows:
    images = args.pictures or 5000
    sides = evaluation_case(images, 300, 0)
    numbers: dict[str, list[float]] = {}

    def kept(name: str) -> Callable[[], None]:
        return lambda: numbers.update({name: list(sides[name]())})

    timings = time_in_turn({name: kept(name) for name in sides}, args.rounds)
    rows = rows_of(timings, 'pycocotools', images=images, detections=300)
    for row in rows:
        row['numbers'] = numbers[row['side']]
    return rows


_SUBJECTS: dict[str, Callable[[argparse.Namespace, Reference | None], Rows]] = {
    'inference': _inference,
    'training': _training,
    'leave-one-out': _leave_one_out,
    'criterion': _criterion,
    'attention': _attention,
    'deploy': _deployed,
    'scale': _scale,
    'data': _data,
    'evaluation': _evaluation,
}


def table(rows: Rows) -> str:
    """Rows as text: seconds in ms, ratios to two digits; lists are left to the JSON file."""
    columns = list(dict.fromkeys(key for row in rows for key in row if not isinstance(row[key], list)))
    columns = [c for c in columns if c not in _MEASURED[1:] and any(row.get(c) is not None for row in rows)]
    names = [column.removesuffix('_s') if column in _MEASURED else column for column in columns]
    lines = [names] + [[_cell(column, row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ''
    if column in _MEASURED:
        return f'{1000 * value:.1f} ms'
    return f'{value:.3f}' if isinstance(value, float) else str(value)

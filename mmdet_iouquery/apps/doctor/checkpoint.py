"""``python -m mmdet_iouquery.doctor checkpoint FILE``: what a checkpoint holds, told without running code from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...checkpoints.convert import unwrap_accounted
from ...checkpoints.files import has_checksums, read_checkpoint

_NOTES = ('experiment_name', 'time', 'seed', 'source', 'preprocessing', 'mmengine_version', 'mmdet_version')
_TRAINING = ('optimizer', 'message_hub')  # what a run of mmengine goes on from, beside its weights
_MOST = 10  # names shown of a list


class CheckpointFacts(NamedTuple):
    """What :func:`inspect_checkpoint` found."""

    path: str
    has_checksums: bool
    """Whether the file has checksums by which it is known to be whole; one of torch before 1.6 has none."""
    place: str
    """Where in the file the weights are, such as ``state_dict`` or ``ema.module``; empty: at its top."""
    tensors: int
    numbers: int
    """Of all weights together, running statistics of norms included."""
    types: dict[str, int]
    """Tensors of each type of number."""
    not_finite: tuple[str, ...]
    """Weights that hold NaN or infinity."""
    average: str
    """What is known of an exponential moving average."""
    training: dict[str, int] | None
    """Epoch and iteration, where a training can go on from the file; None: it has weights alone."""
    classes: tuple[str, ...] | None
    notes: dict[str, str]
    """What the file says of its origin."""
    beside: tuple[str, ...]
    """Entries beside the weights."""


def inspect_checkpoint(path: str | Path) -> CheckpointFacts:
    """Read a checkpoint file and say what it holds.

    Raises:
        InputError: there is none; it is damaged or torn; it holds objects that only code could restore, which is not
            run; or there are no weights in it.
    """
    content = read_checkpoint(path)
    weights, key, beside = unwrap_accounted(content)
    meta = content.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    floating = {key: value for key, value in weights.items() if value.is_floating_point()}
    return CheckpointFacts(
        path=str(path),
        has_checksums=has_checksums(Path(path).expanduser()),
        place=key,
        tensors=len(weights),
        numbers=sum(value.numel() for value in weights.values()),
        types=dict(Counter(str(value.dtype).removeprefix('torch.') for value in weights.values())),
        not_finite=tuple(key for key, value in floating.items() if not torch.isfinite(value).all()),
        average=_average(content, key),
        training=_training(content, meta),
        classes=_classes(meta),
        notes={name: printable(meta[name]) for name in _NOTES if name in meta},
        beside=tuple(map(printable, beside)),
    )


def _average(content: Mapping[str, Any], key: str) -> str:
    if 'ema_state_dict' in content:  # mmengine's EMAHook exchanges the two when it writes
        return 'the weights in state_dict are the average; those that are trained are in ema_state_dict'
    return 'the weights are the average' if key.startswith('ema') else 'none'


def _training(content: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, int] | None:
    steps = {name: meta[name] for name in ('epoch', 'iter') if isinstance(meta.get(name), int)}
    return steps if len(steps) == 2 and all(name in content for name in _TRAINING) else None


def _classes(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    of_data = meta.get('dataset_meta')
    classes = of_data.get('classes') if isinstance(of_data, Mapping) else meta.get('CLASSES')  # the latter of mmdet 2
    return tuple(map(printable, classes)) if isinstance(classes, (list, tuple)) else None


def printable(value: object) -> str:
    """Text from a file of unknown origin, without what a terminal would obey."""
    return ''.join(letter if letter.isprintable() else '?' for letter in str(value))


def render(facts: CheckpointFacts) -> str:
    """The facts as text for a terminal."""
    whole = (
        'its checksums are right' if facts.has_checksums else 'it could be read to its end; its format has no checksums'
    )
    steps = facts.training
    rows = {
        'safe': 'it holds tensors and plain values; nothing in it runs when it is read',
        'whole': whole,
        'weights': f'{facts.tensors} tensors of {facts.numbers / 1e6:.1f} million numbers '
        f'({", ".join(f"{count} {kind}" for kind, count in facts.types.items())}), {facts.place or "at the top"}',
        'average (EMA)': facts.average,
        'training': f'goes on with --resume from epoch {steps["epoch"]}, iteration {steps["iter"]}'
        if steps
        else 'none to go on from: weights alone',
        'classes': 'not noted' if facts.classes is None else f'{len(facts.classes)}: {some(facts.classes)}',
        **facts.notes,
        'beside the weights': some(facts.beside) or 'nothing',
    }
    if facts.not_finite:
        rows['not finite'] = f'{len(facts.not_finite)} tensors hold NaN or infinity: {some(facts.not_finite)}'
    return table(facts.path, rows)


def table(title: str, rows: Mapping[str, object]) -> str:
    """Names and what is said of them, in lines below a title."""
    width = max(map(len, rows))
    return '\n'.join([title, *(f'  {name:<{width}}  {text}' for name, text in rows.items())])


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = [f'{len(names) - _MOST} more'] if len(names) > _MOST else []
    return ', '.join([*names[:_MOST], *more])

"""Weights in the format safetensors, which holds numbers alone, with notes beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..file_io import umask

SAFETENSORS_LINE = 'python -m pip install safetensors'
NOTES = 'mmdet_iouquery'
"""Of the texts in the head of a file of ours, the one that holds its notes, as JSON."""


def read_safetensors(path: Path) -> Mapping[str, Any]:
    """Weights on the CPU; of a file of ours ``{'state_dict': weights, 'meta': notes}``.

    Raises:
        InputError: it is torn or no such file, or the package is missing.
    """
    weights, notes = _read(path, with_weights=True)
    return weights if notes is None else {'state_dict': weights, 'meta': notes}


def read_notes(path: Path) -> dict[str, Any]:
    """The notes of a file of ours, without its weights; empty: there are none. Raises as :func:`read_safetensors`."""
    return _read(path, with_weights=False)[1] or {}


def _read(path: Path, *, with_weights: bool) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError(f'{path} needs the package safetensors: {SAFETENSORS_LINE}') from error
    try:
        with safe_open(path, framework='pt') as file:
            notes = (file.metadata() or {}).get(NOTES)
            weights = {key: file.get_tensor(key) for key in file.keys()} if with_weights else {}  # noqa: SIM118
        return weights, None if notes is None else dict(json.loads(notes))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(f'{path} is cut short or no safetensors file ({lines[0][:160]}); download it again') from error


def write_safetensors(path: Path, weights: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write weights, with notes that JSON can hold. Not by itself whole or absent: see :func:`.write_folder`.

    Raises:
        InputError: the package is missing.
        OSError: the disk refuses.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ImportError as error:
        raise InputError(f'{path.name} needs the package safetensors: {SAFETENSORS_LINE}') from error
    # clones: tensors that share memory, such as views, are refused
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in weights.items()}
    try:
        save_file(tensors, path, {'format': 'pt', NOTES: json.dumps(notes, sort_keys=True)})
        _sort_texts(path)
        path.chmod(0o666 & ~umask())  # safetensors leaves it to its owner alone
    except SafetensorError as error:
        raise OSError(f'{path.name}: {error}') from error


def _sort_texts(path: Path) -> None:
    """Have the same content written as the same bytes: safetensors puts texts into its head in any order.

    The head is the length of a JSON object in 8 bytes, lowest first, and that object, to which blanks may be added.
    """
    with open(path, 'rb+') as file:
        size = int.from_bytes(file.read(8), 'little')
        head = json.loads(file.read(size))
        head['__metadata__'] = dict(sorted(head['__metadata__'].items()))
        file.seek(8)
        file.write(json.dumps(head, ensure_ascii=False, separators=(',', ':')).encode().ljust(size))

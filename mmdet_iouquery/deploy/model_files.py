"""Files of exported models: where they may be written, what they consist of, whether they are written already."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from iouquery_runtime import InputError as RuntimeInputError
from iouquery_runtime.backends import open_file

from ..choices import EXPORTED
from ..config_options import differences
from ..errors import InputError

_WRITTEN = {
    'config': 'of another config',
    'checkpoint_sha256': 'of another checkpoint',
    'config_options': 'with other --cfg-options',
    'package_version': 'by another version of this package',
    'settings': 'with other settings',
    'precision': 'in another precision',
    'test_pipeline': 'with another test pipeline',
    'names': 'with other names of classes',
    'model': 'with other values of the model',
    'quantised_from': 'of another file',
    'quantised_with': 'with other settings',
    'quantised_on': 'by ranges of other images',
}
"""How a file was made otherwise, by the name of what differs in its metadata."""


def check_destination(path: Path, suffixes: Sequence[str] = EXPORTED) -> None:
    """Raise :class:`InputError` where a path is a folder, or ends in none of the suffixes."""
    if path.is_dir():
        raise InputError(f'{path} is a folder; name the file to write, e.g. {path / "model.onnx"}')
    if path.suffix not in suffixes:
        raise InputError(f'{path} must end in {" or ".join(suffixes)}')


def files_of(path: Path) -> list[Path]:
    """What a model consists of: an ``.onnx`` file, or an ``.xml`` with its ``.bin``."""
    return [path] if path.suffix == '.onnx' else [path, path.with_suffix('.bin')]


def is_written(path: Path, origin: Mapping[str, str], force: bool) -> bool:
    """Whether a file is there, whole, that says of itself what is asked for.

    Args:
        path: ends in one of :data:`~mmdet_iouquery.choices.EXPORTED`.
        origin: values of its metadata.
        force: what is there counts for nothing.

    Raises:
        InputError: what is there is something else; the message says what.
    """
    existing = [file for file in files_of(path) if file.exists()]
    if force or not existing:
        return False
    try:
        values = open_file(path, 1, None, None).metadata.values
    except RuntimeInputError:
        values = {}
    differing = [key for key in origin if values.get(key) != origin[key]]
    if differing:
        reason = f'was written {_otherwise(differing[0], values, origin)}' if values else 'is another file'
        raise InputError(f'{path} exists already and {reason}; choose another name, or --force to replace it')
    return True


def _otherwise(key: str, values: Mapping[str, str], origin: Mapping[str, str]) -> str:
    """How a file was made; where a value is one of several settings in JSON, with those that differ."""
    try:
        before, now = json.loads(values.get(key, '')), json.loads(origin[key])
    except ValueError:
        return _WRITTEN[key]
    several = isinstance(before, dict) and isinstance(now, dict)
    return f'{_WRITTEN[key]} ({differences(before, now)})' if several else _WRITTEN[key]

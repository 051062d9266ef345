"""``iouquery doctor checkpoint FILE.onnx``: what an exported file says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iouquery_runtime import InputError as RuntimeInputError
from iouquery_runtime.backends import open_file

from ...errors import InputError
from .checkpoint import printable, some, table

_ORIGIN = (
    'config',
    'config_options',
    'checkpoint_sha256',
    'quantised_from',
    'package_version',
    'torch_version',
    'opset',
)


def inspect_exported(path: str | Path) -> dict[str, Any]:
    """Open an exported file and say what it holds.

    Returns:
        By name, as the file has it; ``image_size`` is height and width in px, or None: any multiples of 32;
        ``batch_size`` None: any.

    Raises:
        InputError: there is none; it is damaged or of another maker; what runs it is not installed.
    """
    try:
        file = open_file(Path(path), 1, None, None)
    except RuntimeInputError as error:
        raise InputError(str(error)) from error
    metadata, values = file.metadata, file.metadata.values
    return {
        'path': str(path),
        'classes': [*map(printable, metadata.names)],
        'image_size': metadata.image_size,
        'default_image_size': metadata.default_image_size,
        'batch_size': file.batch_size,
        'precision': printable(values.get('precision', 'not noted')),
        'input': metadata.input,
        'output': metadata.output,
        'max_per_img': metadata.max_per_img,
        'score_thr': metadata.score_thr,
        'overlap_thr': metadata.overlap_thr,
        'calibrated': metadata.calibration is not None,
        **{name: printable(values[name]) for name in _ORIGIN if values.get(name)},
    }


def render(facts: dict[str, Any]) -> str:
    """The facts as text for a terminal."""
    size, default = (facts[name] and '{}x{}'.format(*facts[name]) for name in ('image_size', 'default_image_size'))
    rows = {
        'kind': f'an exported file, which runs here; {facts["output"]} of {facts["input"]}',
        'precision': facts['precision'],
        'classes': f'{len(facts["classes"])}: {some(facts["classes"])}',
        'images': f'{size or f"any multiples of 32, {default} unless told otherwise"} (height x width, px)',
        'batch': facts['batch_size'] or 'any',
        'detections': f'{facts["max_per_img"]} an image at most, score_thr {facts["score_thr"]}, overlap_thr '
        f'{facts["overlap_thr"]}, {"" if facts["calibrated"] else "not "}calibrated',
        **{name: facts[name] for name in _ORIGIN if name in facts},
    }
    return table(facts['path'], rows)

"""Files of OpenVINO, an ``.xml`` with its ``.bin``, that say of themselves what exported ONNX files say."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iouquery_runtime import InputError as RuntimeInputError
from iouquery_runtime.backends import open_file

from ..errors import InputError

METADATA = 'iouquery'
"""Under which the values of an ONNX file's ``metadata_props`` stand in ``rt_info``."""


def convert_to_openvino(source: Path, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an exported ONNX file as OpenVINO's, in the same precision.

    Raises:
        InputError: OpenVINO is not installed, or the disk refuses.
    """
    check_openvino()
    import openvino

    model = openvino.Core().read_model(str(source))
    write_openvino(model, path, metadata, half=metadata.get('precision') == 'float16')


def check_openvino() -> None:
    """Raise :class:`InputError` where OpenVINO is not installed."""
    if importlib.util.find_spec('openvino') is None:
        raise InputError(
            'an .xml file needs openvino: python -m pip install openvino, or install this package as '
            'mmdet-iouquery[openvino]'
        )


def is_written(path: Path, origin: Mapping[str, str], force: bool) -> bool:
    """Whether a file is there, whole, that says of itself what is asked for.

    Args:
        path: ends in ``.onnx`` or ``.xml``.
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
        what = f'was written from or with something else ({differing[0]})' if values else 'is another file'
        raise InputError(f'{path} exists already and {what}; choose another name, or --force to replace it')
    return True


def files_of(path: Path) -> list[Path]:
    """What a model consists of: an ``.onnx`` file, or an ``.xml`` with its ``.bin``."""
    return [path] if path.suffix == '.onnx' else [path, path.with_suffix('.bin')]


def write_openvino(model: Any, path: Path, metadata: Mapping[str, str], *, half: bool = False) -> None:
    """Write a model; both files are whole or absent.

    Args:
        model: ``openvino.Model``.
        path: ends in ``.xml``.
        metadata: what the file says of itself.
        half: store weights in float16, which halves the file; what is computed in is the runtime's choice.

    Raises:
        InputError: the disk refuses.
    """
    import openvino

    for key, value in metadata.items():
        model.set_rt_info(value, [METADATA, key])
    temporary = path.with_name(f'.{path.stem}.part.xml')
    parts = {temporary.with_suffix(suffix): path.with_suffix(suffix) for suffix in ('.bin', '.xml')}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        openvino.save_model(model, str(temporary), compress_to_fp16=half)
        for part, final in parts.items():
            os.replace(part, final)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f'cannot write {path}: {getattr(error, "strerror", None) or str(error).splitlines()[-1]}'
        ) from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)

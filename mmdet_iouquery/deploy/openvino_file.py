"""Files of OpenVINO, an ``.xml`` with its ``.bin``, that say of themselves what exported ONNX files say."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iouquery_runtime.backends import openvino_core

from ..errors import InputError

METADATA = 'iouquery'
"""Under which the values of an ONNX file's ``metadata_props`` stand in ``rt_info``."""


def convert_to_openvino(source: Path, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an exported ONNX file as OpenVINO's, in the same precision.

    Raises:
        InputError: OpenVINO is not installed, or the disk refuses.
    """
    check_openvino()
    model = openvino_core().read_model(str(source))
    write_openvino(model, path, metadata, half=metadata.get('precision') == 'float16')


def check_openvino() -> None:
    """Raise :class:`InputError` where OpenVINO is not installed."""
    if importlib.util.find_spec('openvino') is None:
        raise InputError(
            'an .xml file needs openvino: python -m pip install openvino, or install this package as '
            'mmdet-iouquery[openvino]'
        )


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
        for written, final in parts.items():
            os.replace(written, final)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f'cannot write {path}: {getattr(error, "strerror", None) or str(error).splitlines()[-1]}; name another '
            'file, or make room'
        ) from error
    finally:
        for written in parts:
            written.unlink(missing_ok=True)

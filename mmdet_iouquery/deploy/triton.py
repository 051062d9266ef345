"""A model repository for NVIDIA's Triton Inference Server, of an exported file.

Its layout is ``NAME/1/model.onnx`` beside ``NAME/config.pbtxt`` (Triton's documentation, "Model Repository" and "Model
Configuration"), run by Triton's onnxruntime back end. Resizing is the client's; ``parameters`` say what it has to know.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..argument_checks import check_counts
from ..errors import InputError

if TYPE_CHECKING:
    from onnx import ValueInfoProto

MAX_BATCH_SIZE = 8
_FIRST_LINE = '# Written by mmdet_iouquery.deploy.triton; written anew when it is called again.'
_TYPES = {'FLOAT': 'TYPE_FP32', 'FLOAT16': 'TYPE_FP16', 'UINT8': 'TYPE_UINT8', 'INT64': 'TYPE_INT64'}
_OF_SIZES = ('imgsz', 'default_imgsz', 'strides', 'min_tokens')
_PARAMETERS = ('iouquery.format', 'names', *_OF_SIZES, 'resize', 'channel_order', 'test_cfg')


def write_repository(
    model_path: str | Path, folder: str | Path, name: str | None = None, max_batch_size: int = MAX_BATCH_SIZE
) -> Path:
    """Write ``folder/name/1/model.onnx`` and ``folder/name/config.pbtxt``.

    Where the file takes any number of images, Triton puts up to ``max_batch_size`` requests together; where it takes a
    fixed number, each request has to bring that many.

    Args:
        model_path: a file that ``iouquery export`` has written.
        folder: the model repository; other models in it stay as they are.
        name: of the model in it; None: that of the file.
        max_batch_size: images at most that are run at once.

    Returns:
        The model's folder.

    Raises:
        InputError: the file is missing, no ONNX file or of another maker; the name cannot be one; the folder of that
            name was not written by this function; the disk refuses.
    """
    model_path, folder = Path(model_path), Path(folder)
    check_counts(max_batch_size=max_batch_size)
    name = model_path.stem if name is None else name
    target = check_target(folder, name)
    config = configuration(model_path, name, max_batch_size)
    try:
        _write(model_path, config, target)
    except OSError as error:
        raise InputError(
            f'{target} cannot be written: {error.strerror or error}; name another folder, or make room'
        ) from error
    return target


def check_target(folder: Path, name: str) -> Path:
    """The folder of a model in a repository.

    Raises:
        InputError: the name cannot be one, or what is there was not written by :func:`write_repository`.
    """
    if not re.fullmatch(r'[\w.-]+', name) or name.strip('.') == '':
        raise InputError(
            f'the name of a model in Triton must be made of letters, digits, ".", "_" and "-", got {name!r}'
        )
    target = folder / name
    if target.exists() and not _is_ours(target):
        raise InputError(f'{target} exists and was not written by this command; name another folder or model')
    return target


def _write(model_path: Path, config: str, target: Path) -> None:
    """Both files are whole or absent; of a folder that is there, other versions of the model stay as they are."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f'.{target.name}-') as scratch:
        new = Path(scratch) / target.name
        (new / '1').mkdir(parents=True)
        shutil.copyfile(model_path, new / '1' / 'model.onnx')
        (new / 'config.pbtxt').write_text(config, encoding='utf-8')
        if not target.exists():
            new.rename(target)
            return
        (target / '1').mkdir(exist_ok=True)
        for file in ('1/model.onnx', 'config.pbtxt'):
            os.replace(new / file, target / file)


def configuration(model_path: Path, name: str, max_batch_size: int = MAX_BATCH_SIZE) -> str:
    """The text of ``config.pbtxt`` for a file.

    Raises:
        InputError: the file is missing, no ONNX file, of another maker, or has its weights in other files.
    """
    graph, metadata = _read(model_path)
    tensors = [*graph.input, *graph.output]
    dynamic = {bool(_dims(tensor)[0] == -1) for tensor in tensors} == {True}
    lines = [
        _FIRST_LINE,
        f'name: {_quoted(name)}',
        'backend: "onnxruntime"',
        'default_model_filename: "model.onnx"',
        f'max_batch_size: {max_batch_size if dynamic else 0}',
    ]
    for kind, values in (('input', graph.input), ('output', graph.output)):
        lines += [f'{kind} [', *_joined(_tensor(value, skip=int(dynamic)) for value in values), ']']
    if dynamic:
        lines.append('dynamic_batching { }')
    for key in _PARAMETERS:
        if key in metadata:
            value = f'value: {{ string_value: {_quoted(metadata[key])} }}'
            lines += ['parameters {', f'  key: {_quoted(key)}', f'  {value}', '}']
    return '\n'.join(lines) + '\n'


def _read(model_path: Path) -> tuple[Any, Mapping[str, str]]:
    """The graph of an exported file, and its metadata."""
    try:
        import onnx
    except ImportError as error:
        raise InputError("reading an ONNX file needs onnx: pip install 'mmdet-iouquery[export]'") from error
    if not model_path.is_file():
        raise InputError(f'there is no file {model_path}; name an .onnx file that `iouquery export` wrote')
    try:
        model = onnx.load(model_path, load_external_data=False)
    except Exception as error:  # protobuf's own, which has no public base
        raise InputError(
            f'{model_path} is not an ONNX file: {error}; name an .onnx file that `iouquery export` wrote'
        ) from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if 'iouquery.format' not in metadata:
        raise InputError(
            f'{model_path} was not written by `iouquery export` (no iouquery.format in it); export the detector with it'
        )
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise InputError(f'{model_path} has its weights in other files; export it again as one file')
    return model.graph, metadata


def _dims(value: ValueInfoProto) -> list[int]:
    """Sizes of a tensor; -1 where any is possible."""
    return [dim.dim_value if dim.HasField('dim_value') else -1 for dim in value.type.tensor_type.shape.dim]


def _tensor(value: ValueInfoProto, skip: int) -> str:
    """An input or output, without its first ``skip`` dimensions."""
    from onnx import TensorProto

    kind = _TYPES[TensorProto.DataType.Name(value.type.tensor_type.elem_type)]
    dims = ', '.join(map(str, _dims(value)[skip:]))
    return f'  {{ name: {_quoted(value.name)}, data_type: {kind}, dims: [ {dims} ] }}'


def _joined(entries: Iterator[str]) -> Sequence[str]:
    return ',\n'.join(entries).split('\n')


def _quoted(text: str) -> str:
    """As a string of protobuf's text format; its escapes are those of JSON but for letters beyond ASCII, kept here."""
    return json.dumps(text, ensure_ascii=False)


def _is_ours(folder: Path) -> bool:
    try:
        return (folder / 'config.pbtxt').read_text(encoding='utf-8').startswith(_FIRST_LINE)
    except (OSError, UnicodeDecodeError):
        return False

"""One ONNX file that holds all that a runtime needs, from pixels to boxes."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..argument_checks import check_choice, check_counts, check_flags, check_sequence
from ..choices import ATTENTIONS, EXPORTERS, INPUTS, OPSETS, PRECISIONS
from ..errors import InputError
from .graph import STRIDE, AdapterDetector, Deployed, example
from .metadata import ModelSource, describe
from .model_files import check_destination

if TYPE_CHECKING:
    from onnx import ModelProto

    from .verify import Parity

TRACED_BATCH = 2


@dataclass(frozen=True)
class ExportSettings:
    """What is written.

    Raises:
        InputError: a value that cannot be.
    """

    size: tuple[int, int] = (640, 640)
    """Height and width of the input, multiples of 32."""
    dynamic_size: bool = False
    """Take images of any size of multiples of 32 that has a token for each query; of 'dynamo', of at least half of
    ``size``."""
    batch: int | None = None
    """Images at once; None: any number."""
    input: str = 'float32-nchw'
    """'float32-nchw', (B, 3, H, W) float32; or 'uint8-nhwc', (B, H, W, 3) uint8; RGB, 0..255 both."""
    raw: bool = False
    """Logits and normalised boxes of all queries instead of detections."""
    attention: str = 'grid_sample'
    """Deformable attention by 'grid_sample' or, for TensorRT, 'gather'."""
    precision: str = 'float32'
    """'float32', or 'float16': half the file, for runtimes that compute in what the file says, such as TensorRT."""
    opset: int | None = None
    """17 to 20, of 'dynamo' from 18; None: the lowest."""
    exporter: str = 'torchscript'
    """'torchscript', or 'dynamo', which needs onnxscript; where torch has the former no more, the latter."""
    verify: bool = True
    """Compare the file with the model before it gets its name."""

    def __post_init__(self) -> None:
        check_sequence(size=self.size)
        check_flags(dynamic_size=self.dynamic_size, raw=self.raw, verify=self.verify)
        check_choice(INPUTS, input=self.input)
        check_choice(ATTENTIONS, attention=self.attention)
        check_choice(PRECISIONS, precision=self.precision)
        check_choice(EXPORTERS, exporter=self.exporter)
        if self.batch is not None:
            check_counts(batch=self.batch)
        if len(self.size) != 2 or any(side % STRIDE for side in self.size):
            nearest = [max(STRIDE, round(side / STRIDE) * STRIDE) for side in self.size[:2]]
            raise InputError(
                f'size must be a height and a width, multiples of {STRIDE}, the coarsest stride, got '
                f'{[*self.size]}; nearest is {nearest}'
            )
        if self.opset == 16:
            raise InputError(
                'opset 16 has no LayerNormalization, and its parts, Pow and ReduceMean, leave the range of half '
                f'precision: name an opset from {OPSETS[0]} to {OPSETS[-1]}'
            )
        if self.opset is not None:
            check_choice(OPSETS, opset=self.opset)
        if self.opset == 17 and chosen_exporter(self) == 'dynamo':
            raise InputError("torch's exporter dynamo writes opset 18 and above; name one, or the exporter torchscript")

    @property
    def written_opset(self) -> int:
        """The opset of the file."""
        return self.opset or (18 if chosen_exporter(self) == 'dynamo' else 17)


@dataclass(frozen=True)
class ExportReport:
    """What was written."""

    path: Path
    settings: ExportSettings
    metadata: dict[str, str]
    num_nodes: int
    num_bytes: int
    parity: tuple[Parity, ...] = field(default=())
    """Of each batch and size that the file was compared at; empty: it was not."""


def export_onnx(
    model: nn.Module,
    path: str | Path,
    settings: ExportSettings | None = None,
    source: ModelSource | None = None,
    *,
    force: bool = False,
) -> ExportReport:
    """Write a detector as an ONNX file that stands for itself. The detector stays as it is.

    The file is written under a temporary name and gets its own when all checks have passed; otherwise none is left.

    Args:
        model: a detector with an ``RTDETRHead``, with its weights.
        path: must end in ``.onnx``.
        settings: None: the defaults.
        source: what the file says about names and images; None: what ``model.dataset_meta`` says.
        force: replace a file that is there.

    Raises:
        InputError: what is asked for cannot be, a package is missing, or the disk refuses.
        ParityError: the file computes something else than the model.
    """
    settings, path = settings or ExportSettings(), Path(path).expanduser()
    check_packages(settings)
    check_destination(path, ['.onnx'])
    if path.exists() and not force:
        raise InputError(f'{path} exists already; choose another name, or --force to replace it')
    from .onnx_file import finish

    source = source or ModelSource(names=(getattr(model, 'dataset_meta', None) or {}).get('classes'))
    deployed = Deployed(
        model, input=settings.input, raw=settings.raw, attention=settings.attention, precision=settings.precision
    )
    if settings.dynamic_size and isinstance(deployed.detector, AdapterDetector):
        raise InputError(
            f'{type(model).__name__} can be exported for one size only, as its position codes are of that size; leave '
            'dynamic_size out'
        )
    inputs = example(settings.batch or TRACED_BATCH, settings.size, settings.input, settings.raw)
    with torch.no_grad():
        outputs = deployed(*inputs)
    metadata = describe(source, settings, deployed, num_queries=outputs[-1].shape[1])
    proto = finish(_written(deployed, inputs, outputs, settings), outputs, _runs(settings), settings, metadata)
    temporary = path.with_name(f'.{path.name}.part')
    try:
        parity: tuple[Parity, ...] = ()
        _write(temporary, proto.SerializeToString(), path)
        if settings.verify:
            from .verify import verify

            parity = verify(model, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return ExportReport(path, settings, metadata, len(proto.graph.node), path.stat().st_size, parity)


def check_packages(settings: ExportSettings) -> None:
    """Raise :class:`InputError` where a package is missing that an export needs."""
    needed = {'export': ['onnx', 'onnxslim', 'onnxruntime'], 'export-dynamo': []}
    if chosen_exporter(settings) == 'dynamo':
        needed['export-dynamo'].append('onnxscript')
    for extra, packages in needed.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            raise InputError(
                f'an export needs {" and ".join(missing)}: python -m pip install {" ".join(missing)}, or install this '
                f'package as mmdet-iouquery[{extra}]'
            )


def chosen_exporter(settings: ExportSettings) -> str:
    """The exporter asked for, or dynamo where torch has the other no more."""
    return settings.exporter if 'dynamic_axes' in inspect.signature(torch.onnx.export).parameters else 'dynamo'


def _runs(settings: ExportSettings) -> list[dict[str, Any]]:
    """Inputs of a file, by name, in which all that may vary is seen to."""
    height, width = settings.size
    batches = [settings.batch] if settings.batch else [TRACED_BATCH, TRACED_BATCH + 1]
    sizes = [(height, width), (height + STRIDE, width + 2 * STRIDE)] if settings.dynamic_size else [(height, width)]
    return [
        dict(zip(('images', 'sizes'), (x.numpy() for x in example(batch, size, settings.input, settings.raw))))
        for batch in batches
        for size in sizes
    ]


def _write(temporary: Path, content: bytes, path: Path) -> None:
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f'cannot write {path}: {error.strerror or error}; name another file, or make room') from error


def _written(deployed: Deployed, inputs: tuple[Tensor, ...], outputs: Any, settings: ExportSettings) -> ModelProto:
    """What torch's exporter makes of the module."""
    write = _by_dynamo if chosen_exporter(settings) == 'dynamo' else _by_torchscript
    with _quiet(), torch.no_grad():
        return write(deployed, inputs, ['images', 'sizes'][: len(inputs)], [*outputs._fields], settings)


def _by_torchscript(
    deployed: Deployed, inputs: tuple[Tensor, ...], input_names: list[str], names: list[str], settings: ExportSettings
) -> ModelProto:
    import onnx

    axes: dict[str, dict[int, str]] = {}
    if settings.batch is None:
        axes = {name: {0: 'batch'} for name in [*input_names, *names]}
    if settings.dynamic_size:
        first = 1 if settings.input == 'uint8-nhwc' else 2
        axes.setdefault('images', {}).update({first: 'height', first + 1: 'width'})
    file = io.BytesIO()
    torch.onnx.export(
        deployed,
        inputs,
        file,  # type: ignore[arg-type]
        opset_version=settings.written_opset,
        input_names=input_names,
        output_names=names,
        dynamic_axes=axes,
        dynamo=False,
    )
    return onnx.load_from_string(file.getvalue())


def _by_dynamo(
    deployed: Deployed, inputs: tuple[Tensor, ...], input_names: list[str], names: list[str], settings: ExportSettings
) -> ModelProto:
    from torch.export import Dim

    shapes: list[dict[int, Any]] = [{} for _ in inputs]
    if settings.batch is None:
        batch = Dim('batch', min=1, max=4096)
        shapes = [{0: batch} for _ in inputs]
    if settings.dynamic_size:
        first = 1 if settings.input == 'uint8-nhwc' else 2
        for axis, name, side in zip((first, first + 1), ('height', 'width'), settings.size):
            shapes[0][axis] = STRIDE * Dim(name, min=max(1, side // STRIDE // 2), max=4096)
    program = torch.onnx.export(
        deployed,
        inputs,
        dynamo=True,
        verbose=False,
        opset_version=settings.written_opset,
        input_names=input_names,
        output_names=names,
        dynamic_shapes=tuple(shapes),
    )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What exporters say to those who work on them is left out; what matters is checked afterwards."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)

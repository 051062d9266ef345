"""From what an exporter wrote to the file that is kept: folded, named, checked, described."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxslim
from onnx import ModelProto, TensorProto, numpy_helper

from ..core import FLOAT16_MAX
from ..errors import InputError
from .shape_folding import Inputs, fold_shapes

if TYPE_CHECKING:
    from .export import ExportSettings

OPERATORS = frozenset(
    """
    Abs Add And AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos
    CumSum DepthToSpace Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool Greater GreaterOrEqual GridSample HardSigmoid Identity InstanceNormalization
    LayerNormalization LeakyRelu Less LessOrEqual Log MatMul Max MaxPool Mean Min Mul Neg Not Or Pad Pow PRelu Range
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round Shape Sigmoid Sign Sin Size Slice
    Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze Where Xor
    """.split()  # noqa: SIM905
)
"""Operators that a file may have, all of the standard's own domain, none of which depends on data for its shape.

TensorRT has them: they are marked with Y in the table of its parser for 8.4 (onnx-tensorrt, docs/operators.md) but for
GridSample (since 8.5), LayerNormalization (8.6) and Gelu, which comes with opset 20.
"""
_SCOPES = 'pkg.torch.onnx.name_scopes'


def finish(
    proto: ModelProto,
    outputs: Any,
    runs: Sequence[Inputs],
    settings: ExportSettings,
    metadata: Mapping[str, str],
) -> ModelProto:
    """Fold, check and describe what an exporter wrote.

    Args:
        runs: inputs by name of several shapes, see :func:`.fold_shapes`.
        outputs: what the module gives, a named tuple of the file's outputs and, behind them, inner tensors.

    Raises:
        InputError: the file is not what was asked for, or has what runtimes cannot take.
        ParityError: it does not run on one of the runs.
    """
    _name_by_module(proto)
    fold_shapes(proto, runs)
    proto = onnxslim.slim(proto)
    check_standard(proto, settings.written_opset)
    _keep_outputs(proto, outputs, settings)
    _check_symbols(proto, settings)
    hold_in_range(proto)
    if settings.precision == 'float16':
        metadata = {**metadata, 'float32_layers': json.dumps(single_precision_parts(proto))}
    proto.ir_version = 8 if settings.written_opset < 19 else 9  # the oldest that have these opsets
    del proto.metadata_props[:]
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    return proto


def single_precision_parts(proto: ModelProto) -> list[str]:
    """The modules, by the prefix of their nodes, that give numbers in single precision, casts aside."""
    values = onnx.shape_inference.infer_shapes(proto).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*values.value_info, *values.output)}
    nodes = [node for node in proto.graph.node if node.op_type != 'Cast']
    single = {node.name.rpartition('/')[0] for node in nodes if TensorProto.FLOAT in map(kinds.get, node.output)}
    return sorted(single - {''})


def _name_by_module(proto: ModelProto) -> None:
    """Name nodes by modules as the older exporter does, and drop notes on where in the code they come from."""
    paths: dict[str, list[str]] = {}
    for node in proto.graph.node:
        notes = {entry.key: entry.value for entry in node.metadata_props}
        if _SCOPES in notes:
            scopes = ast.literal_eval(notes[_SCOPES])
            path = [inner[len(outer) :].lstrip('.') for outer, inner in zip(scopes, scopes[1:-1])]
        else:  # what the exporter has joined stands with what it is made of
            path = next((paths[name] for name in node.input if name in paths), [])
        paths.update(dict.fromkeys(node.output, path))
        if not node.name.startswith('/'):
            node.name = '/'.join(['', *path, node.name])
        del node.metadata_props[:]
        node.doc_string = ''


def check_standard(proto: ModelProto, opset: int) -> None:
    """Raise :class:`InputError` unless a file has the operators of one opset of the standard, and of our list."""
    domains = {entry.domain: entry.version for entry in proto.opset_import}
    used = {(node.domain, node.op_type) for node in proto.graph.node}
    others = sorted(
        {f'{domain}.{name}' if domain else name for domain, name in used if domain or name not in OPERATORS}
    )
    if others:
        raise InputError(
            f'the exporter wrote {", ".join(others)}, which not every runtime has; try the other --exporter, or '
            'another --opset'
        )
    if domains.get('') != opset:
        raise InputError(f'the exporter wrote opset {domains.get("")}, not {opset}; take --opset {domains.get("")}')


def hold_in_range(proto: ModelProto) -> None:
    """Make infinity the largest number of half precision; raise :class:`InputError` where a number is beyond that.

    Infinity is what masks and bounds are made of that mean no number.
    """
    for tensor in _constants(proto):
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind != 'f':
            continue
        held = np.where(np.isinf(values), np.copysign(FLOAT16_MAX, values), values).astype(values.dtype)
        beyond = held[~(np.abs(held) <= FLOAT16_MAX)]
        if beyond.size:
            raise InputError(
                f'{tensor.name} has the number {beyond[0]:g}, and half precision knows none beyond +-{FLOAT16_MAX:g}; '
                'weights may have diverged, or the size of images may be too small for the model; look at the weights, '
                'or export in float32'
            )
        if not np.array_equal(held, values):
            tensor.CopyFrom(numpy_helper.from_array(held, tensor.name))


def _constants(proto: ModelProto) -> Iterator[TensorProto]:
    yield from proto.graph.initializer
    for node in proto.graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField('t'))


def _keep_outputs(proto: ModelProto, outputs: Any, settings: ExportSettings) -> None:
    """Leave the outputs of the format, of known shape; inner tensors keep their names."""
    kept = [*outputs._fields] if settings.raw else ['boxes', 'scores', 'labels']
    del proto.graph.output[:]
    for name in kept:
        value = getattr(outputs, name)
        kind = TensorProto.INT64 if value.dtype.is_floating_point is False else TensorProto.FLOAT
        shape: list[int | str] = [*value.shape]
        if settings.batch is None:
            shape[0] = 'batch'
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, shape))


def _check_symbols(proto: ModelProto, settings: ExportSettings) -> None:
    """Raise :class:`InputError` unless the inputs are as large, or of any size, as was asked for."""
    batch: int | str = settings.batch or 'batch'
    sides: Sequence[int | str] = ('height', 'width') if settings.dynamic_size else settings.size
    images = [batch, *sides, 3] if settings.input == 'uint8-nhwc' else [batch, 3, *sides]
    wanted = {'images': images} if settings.raw else {'images': images, 'sizes': [batch, 2]}
    for value in proto.graph.input:
        dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        # of a size, dynamo writes what it is a multiple of
        matches = (
            value.name in wanted
            and len(dims) == len(wanted[value.name])
            and all(
                isinstance(dim, str) if isinstance(expected, str) else dim == expected
                for dim, expected in zip(dims, wanted[value.name])
            )
        )
        if not matches:
            raise InputError(
                f'the exporter wrote an input {value.name} {dims}; asked for: {wanted}; try the other --exporter'
            )
    if len(proto.graph.input) != len(wanted):
        raise InputError(
            f'the exporter wrote {len(proto.graph.input)} inputs; asked for: {wanted}; try the other --exporter'
        )

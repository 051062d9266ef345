"""Shapes that a graph computes, as constants.

Exporters write each reshape with a shape that is computed when the file runs, from the shapes of other tensors. Where
the size of images is fixed, most of these numbers are the same whatever the images, and the number of images is the one
that a ``Reshape`` finds out by itself. Runtimes plan better with constants.

What depends on shapes alone is found by running the file on inputs of several shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from .inner_tensors import InnerTensors

Inputs = dict[str, NDArray[Any]]

_RESHAPING = {'Reshape': 1, 'Expand': 1, 'Resize': 3}
"""Operators that are given the shape of their result, by the input that it is."""
_COMPARING = ('Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual')


def fold_shapes(proto: ModelProto, runs: Sequence[Inputs]) -> None:
    """Put constants in the place of what is computed from shapes and is the same in all runs.

    Not of what follows from a comparison of numbers that differ between the runs: of other shapes it may end otherwise.

    Args:
        proto: changed.
        runs: inputs by name, of all the shapes that may differ: one number of images and another.

    Raises:
        ParityError: it does not run on one of them.
    """
    of_shapes = _computed_from_shapes(proto)
    taken = [(node, index) for node in proto.graph.node for index, name in enumerate(node.input) if name in of_shapes]
    around = [name for node, _ in taken if node.op_type in _RESHAPING for name in (node.input[0], node.output[0])]
    inner = InnerTensors(proto, [*(node.input[index] for node, index in taken), *around])
    by_run = [inner(inputs) for inputs in runs]
    measured = {name: [values[name] for values in by_run] for name in inner.names}
    undecided = _undecided(proto, measured)
    constants = [_constant(node, index, measured, undecided) for node, index in taken]
    # by what they hold: a weight that is used twice stands in the file once
    names = {_content(numpy_helper.to_array(tensor)): tensor.name for tensor in proto.graph.initializer}
    for (node, index), constant in zip(taken, constants):
        if constant is not None:
            if constant.dtype.kind == 'f' and index == _RESHAPING.get(node.op_type):  # scales, before sizes
                del node.input[index:]
                index -= 1
            content = _content(constant)
            if content not in names:
                names[content] = f'{node.name}/input_{index}'
                proto.graph.initializer.append(numpy_helper.from_array(constant, names[content]))
            node.input[index] = names[content]
    _drop_unused(proto)


def _content(values: NDArray[Any]) -> tuple[Any, ...]:
    return values.dtype.str, values.shape, values.tobytes()


def _computed_from_shapes(proto: ModelProto) -> set[str]:
    """Tensors that are a function of shapes and constants, but for constants themselves."""
    known = {tensor.name for tensor in proto.graph.initializer} | {''}
    known.update(node.output[0] for node in proto.graph.node if node.op_type == 'Constant')
    of_shapes: set[str] = set()
    for node in proto.graph.node:  # each after those it takes from
        if node.op_type != 'Constant' and (node.op_type == 'Shape' or known.issuperset(node.input)):
            of_shapes.update(node.output)
            known.update(node.output)
    return of_shapes


def _undecided(proto: ModelProto, measured: dict[str, list[NDArray[Any]]]) -> set[str]:
    """What is computed from the outcome of comparing numbers that differ between the runs."""
    undecided: set[str] = set()
    for node in proto.graph.node:
        differs = (not _same(measured[name]) for name in node.input if name in measured)
        compares = node.op_type in _COMPARING and any(differs)
        if compares or (node.op_type != 'Shape' and undecided.intersection(node.input)):
            undecided.update(node.output)
    return undecided


def _same(values: list[NDArray[Any]]) -> bool:
    return all(np.array_equal(value, values[0]) for value in values)


def _drop_unused(proto: ModelProto) -> None:
    used, kept = {value.name for value in proto.graph.output}, []
    for node in reversed(proto.graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    initializers = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(initializers)


def _constant(
    node: NodeProto, index: int, measured: dict[str, list[NDArray[Any]]], undecided: set[str]
) -> NDArray[Any] | None:
    """What can be written for an input of a node, of ``Resize`` scales for sizes; None: it has to be computed."""
    values = measured[node.input[index]]
    same = _same(values) and node.input[index] not in undecided
    if same and (node.op_type, index) != ('Resize', _RESHAPING['Resize']):  # which is given scales
        return values[0]
    if index != _RESHAPING.get(node.op_type):
        return None
    before, after = (np.array([x.shape for x in measured[name]]) for name in (node.input[0], node.output[0]))
    varies = (after != after[0]).any(0)
    if node.op_type == 'Reshape':
        return np.where(varies, -1, after[0]) if varies.sum() == 1 and after.all() else None
    if before.shape != after.shape:
        return None
    if node.op_type == 'Expand':
        return np.where(varies, 1, after[0]) if (before == after)[:, varies].all() else None
    scales = after // before
    return scales[0].astype(np.float32) if (scales == scales[0]).all() and (scales * before == after).all() else None

"""oneDNN's layers with packed weights, by torch operators that are no public interface."""

from __future__ import annotations

from functools import cache
from typing import Any

PACKED_ACTIVATIONS = {None: 'none', 'relu': 'relu', 'silu': 'swish'}
"""Of :func:`run_packed_convolution`, by their names in torch."""


@cache
def packs_weights(dtype: Any) -> bool:
    """Whether torch offers oneDNN's layers with packed weights, as its compiler uses them, for a type of numbers.

    They are no public interface, so they are tried once, on small layers whose results are known.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.ones(1, 16, 5, 5, dtype=dtype), torch.ones(32, 16, 3, 3, dtype=dtype)
    layout = (1, 1), (1, 1), (1, 1), 1
    try:
        packed = pack_convolution(weight, *layout, x.shape)
        y = run_packed_convolution(x, packed, None, *layout, 'relu')
        rows, matrix, bias = (torch.ones(shape, dtype=dtype) for shape in ((5, 16), (32, 16), 32))
        rows = run_packed_linear(rows, pack_linear(matrix, len(rows)), bias)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    convolves = y.shape == (1, 32, 5, 5) and bool((y[..., 1:4, 1:4] == 16 * 9).all())
    return convolves and rows.shape == (5, 32) and bool((rows == 17).all())


def pack_convolution(weight: Any, padding: Any, stride: Any, dilation: Any, groups: int, input_shape: Any) -> Any:
    """A convolution's weights as oneDNN wants them for inputs of a shape: a tensor that only it can read."""
    import torch

    return torch.ops.mkldnn._reorder_convolution_weight(
        weight, [*padding], [*stride], [*dilation], groups, [*input_shape]
    )


def run_packed_convolution(
    x: Any, packed: Any, bias: Any, padding: Any, stride: Any, dilation: Any, groups: int, activation: str
) -> Any:
    """A convolution and the activation after it, by packed weights."""
    import torch

    return torch.ops.mkldnn._convolution_pointwise(
        x, packed, bias, [*padding], [*stride], [*dilation], groups, activation, [], ''
    )


def pack_linear(weight: Any, rows: int) -> Any:
    """A linear layer's weights as oneDNN wants them for a number of rows: a tensor that only it can read."""
    import torch

    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)


def run_packed_linear(rows: Any, packed: Any, bias: Any) -> Any:
    """A linear layer on rows (N, C), by packed weights."""
    import torch

    return torch.ops.mkldnn._linear_pointwise(rows, packed, bias, 'none', [], '')

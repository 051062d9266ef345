"""What is compiled, and reached by no public interface: torch's operators, the C library's memory.

oneDNN's layers with packed weights, gradients by themselves, and what becomes of memory that is free.
"""

from __future__ import annotations

import ctypes
import gc
import math
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # options of mallopt, in glibc's malloc.h
_LARGEST_OF_HEAP = 33_000_000  # bytes, of 2^25


@cache
def packs_weights(dtype: Any) -> bool:
    """Whether torch offers oneDNN's layers with packed weights, as its compiler uses them, for a type of numbers.

    They are no public interface, so they are tried once, on small layers whose results are known; never for float16,
    whose layers stay torch's.
    """
    import torch

    if dtype == torch.float16 or not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.ones(1, 16, 5, 5, dtype=dtype), torch.ones(32, 16, 3, 3, dtype=dtype)
    layout = (1, 1), (1, 1), (1, 1), 1
    try:
        packed = pack_convolution(weight, *layout, x.shape)
        y = run_packed_convolution(x, packed, None, *layout, 'relu')
        bounded = run_packed_convolution(x, packed, None, *layout, 'hardtanh', (-math.inf, 96.0))
        rows, matrix, bias = (torch.ones(shape, dtype=dtype) for shape in ((5, 16), (32, 16), 32))
        rows = run_packed_linear(rows, pack_linear(matrix, len(rows)), bias)
        # weights that are not packed, and both transposed; whole numbers, which every type holds
        turned, other = (torch.arange(16 * n).remainder(3).view(16, n).to(dtype) for n in (5, 32))
        product = run_packed_linear(turned.t(), other.t(), None)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    convolves = y.shape == (1, 32, 5, 5) and bool((y[..., 1:4, 1:4] == 16 * 9).all() and (bounded <= 96).all())
    multiplies = rows.shape == (5, 32) and bool((rows == 17).all()) and torch.equal(product, turned.t() @ other)
    return convolves and multiplies


@cache
def computes_fast(dtype: Any) -> bool:
    """Whether layers of a type of numbers run on this CPU by instructions of its own.

    Without them torch computes half precision number by number. Where torch does not tell, this is True.
    """
    import torch

    names = {torch.bfloat16: '_is_mkldnn_bf16_supported', torch.float16: '_is_mkldnn_fp16_supported'}
    if dtype not in names or not torch.backends.mkldnn.is_available():
        return True
    tell = getattr(torch.ops.mkldnn, names[dtype], None)
    return tell is None or bool(tell())


def note_if_slow(dtype: Any, device: Any) -> str:
    """A note where half precision is several times as slow as single: on a CPU without instructions for it.

    Args:
        dtype: that a model is to compute in.
        device: on which.

    Returns:
        The note, for a remedy to follow; empty: there is none.
    """
    if device.type != 'cpu' or computes_fast(dtype):
        return ''
    name = str(dtype).removeprefix('torch.')
    return f'{name} will take several times as long as float32: this CPU has no instructions for it'


def autocast_dtype() -> Any:
    """The type of numbers that autocast computes in on CPUs at this point; None: there is no autocast."""
    import torch

    try:
        return torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else None
    except (AttributeError, TypeError):  # before torch 2.4
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None


def pack_convolution(weight: Any, padding: Any, stride: Any, dilation: Any, groups: int, input_shape: Any) -> Any:
    """A convolution's weights as oneDNN wants them for inputs of a shape: a tensor that only it can read."""
    import torch

    return torch.ops.mkldnn._reorder_convolution_weight(
        weight, [*padding], [*stride], [*dilation], groups, [*input_shape]
    )


def run_packed_convolution(
    x: Any,
    packed: Any,
    bias: Any,
    padding: Any,
    stride: Any,
    dilation: Any,
    groups: int,
    activation: str,
    bounds: Sequence[float] = (),
) -> Any:
    """A convolution and the activation after it, by packed weights.

    Args:
        activation: 'none', 'relu', 'swish' or 'hardtanh'.
        bounds: least and largest value that 'hardtanh' gives.
    """
    import torch

    return torch.ops.mkldnn._convolution_pointwise(
        x, packed, bias, [*padding], [*stride], [*dilation], groups, activation, [*bounds], ''
    )


def pack_linear(weight: Any, rows: int) -> Any:
    """A linear layer's weights as oneDNN wants them for a number of rows: a tensor that only it can read."""
    import torch

    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)


def run_packed_linear(rows: Any, packed: Any, bias: Any = None) -> Any:
    """A linear layer on rows (N, C), by weights (D, C), packed or not: ``rows @ packed.T + bias``."""
    import torch

    return torch.ops.mkldnn._linear_pointwise(rows, packed, bias, 'none', [], '')


def row_products(a: Any, a_index: Any, b: Any, b_index: Any) -> Any:
    """``a[a_index] . b[b_index]`` (M,), row by row: as torch finds the gradient of ``embedding_bag``'s weights.

    Args:
        a, b: (R, D) and (S, D), in single precision at least.
        a_index, b_index: (M,) integers of one type.
    """
    import torch

    starts = a_index[:1]  # not read, as the bag of each entry is given
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(b, a, a_index, starts, b_index, 0)


def silu_gradient(grad: Any, x: Any) -> Any:
    """The gradient (...) of ``silu(x)``, written into ``x``."""
    import torch

    return torch.ops.aten.silu_backward.grad_input(grad, x, grad_input=x)


def relu_gradient(grad: Any, y: Any) -> Any:
    """The gradient (...) of a ReLU that gave ``y``, or was given it, in one pass."""
    import torch

    return torch.ops.aten.threshold_backward(grad, y, 0)


def trained_batch_norm(norm: Any, x: Any) -> Any:
    """A map (B, C, H, W), normalised by its own statistics, and these: mean and inverse standard deviation (C,).

    The running statistics of the ``BatchNorm2d`` learn them.
    """
    import torch

    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    running = norm.running_mean, norm.running_var
    return torch.native_batch_norm(x, norm.weight, norm.bias, *running, True, norm.momentum, norm.eps)


def batch_norm_again(norm: Any, x: Any, weight: Any, bias: Any, mean: Any, invstd: Any) -> Any:
    """The map that :func:`trained_batch_norm` gave, by the weights of then and the statistics it gave."""
    import torch

    return torch.native_batch_norm(x, weight, bias, mean, invstd.pow(-2) - norm.eps, False, 0.0, norm.eps)[0]


def batch_norm_gradients(norm: Any, grad: Any, x: Any, weight: Any, mean: Any, invstd: Any) -> Any:
    """The gradients of map, weight and bias of :func:`trained_batch_norm`."""
    import torch

    statistics = norm.running_mean, norm.running_var, mean, invstd
    return torch.ops.aten.native_batch_norm_backward(grad, x, weight, *statistics, True, norm.eps, [True, True, True])


def dispatch_mode() -> type[Any]:
    """The base class of what is asked to run every operator in place of torch."""
    from torch.utils._python_dispatch import TorchDispatchMode

    return TorchDispatchMode


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, for what it allocates next; it cannot be undone.

    By default glibc gives large blocks, and the free end of its heap, back to the system at once. Every training step
    then gets hundreds of megabytes anew, page by page, each page zeroed by the system first. Peak memory grows by a few
    percent: what is free between blocks in use stays with the process. See mallopt(3).

    Returns:
        Whether the C library is glibc and did so; with any other, nothing is changed.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(_TRIM_THRESHOLD, -1), mallopt(_MMAP_MAX, 0)])


def take_maps_from_heap() -> None:
    """Have glibc take blocks of up to 32 MB from its heap, and give the end of that back only where it has 64 MB free.

    It does so by itself once a block of that size was freed: both limits begin at 128 KB and follow the largest block
    seen, see M_MMAP_THRESHOLD in mallopt(3). A small model frees none so large, and its maps come from the system
    anew for every image, page by page.
    """
    import torch

    torch.empty(_LARGEST_OF_HEAP, dtype=torch.uint8)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Python does not look for cycles of objects that are free, where nearly all that is made stays."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()

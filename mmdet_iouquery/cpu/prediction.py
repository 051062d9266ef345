"""Prediction on CPUs: layers whose weights are transformed once, and a note where half precision is slow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..compat import (
    PACKED_ACTIVATIONS,
    computes_fast,
    pack_convolution,
    pack_linear,
    packs_weights,
    run_packed_convolution,
    run_packed_linear,
)
from ..core import TableCache
from ..core.graph_capture import is_recorded
from ..models.layers import DotProductAttention
from .convolution import can_filter, is_plain
from .products import ProductAttention
from .winograd import winograd_conv2d, winograd_weight

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: 'relu', nn.SiLU: 'silu', nn.Hardtanh: 'hardtanh'}


def accelerate_prediction(module: nn.Module) -> None:
    """Put faster layers in the place of convolutions, linear layers and attention, for prediction on a CPU.

    Wide 3x3 convolutions in single precision are computed by minimal filtering; other convolutions, with a ReLU, a SiLU
    or a Hardtanh that follows in a ``Sequential``, and linear layers by oneDNN with weights packed once, where torch
    offers that; attention by its products, see :class:`.products.ProductAttention`; max pools of neighbours by maxima.
    Subclasses are left alone: they may compute something else.
    """
    last: PackedConv2d | None = None  # the convolution that an activation follows at once
    for name, child in module.named_children():
        activation = _ACTIVATIONS.get(type(child))
        if last is not None and activation is not None:
            last.activation = activation
            last.bounds = (child.min_val, child.max_val) if isinstance(child, nn.Hardtanh) else ()
            setattr(module, name, nn.Identity())
            last = None
        elif not isinstance(child, nn.Identity):
            faster = _faster(child)
            last = faster if isinstance(faster, PackedConv2d) and isinstance(module, nn.Sequential) else None
            setattr(module, name, faster)
            if faster is child:
                accelerate_prediction(child)


def note_if_slow(dtype: torch.dtype, device: torch.device) -> str:
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


def _faster(layer: nn.Module) -> nn.Module:
    """What takes a layer's place, or the layer itself."""
    if type(layer) is DotProductAttention:
        layer.__class__ = ProductAttention
    if isinstance(layer, nn.MaxPool2d) and _pools_neighbours(layer):
        return NeighboursMaxPool2d()
    if isinstance(layer, nn.Conv2d) and type(layer) is nn.Conv2d:
        if layer.weight.dtype == torch.float32 and can_filter(layer):
            return FilteredConv2d(layer)
        return PackedConv2d(layer) if _can_pack(layer) and is_plain(layer) else layer
    return (
        PackedLinear(layer) if isinstance(layer, nn.Linear) and type(layer) is nn.Linear and _can_pack(layer) else layer
    )


def _can_pack(layer: nn.Conv2d | nn.Linear) -> bool:
    return layer.weight.dtype != torch.float16 and packs_weights(layer.weight.dtype)


def _pools_neighbours(pool: nn.MaxPool2d) -> bool:
    layout = pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.return_indices
    return type(pool) is nn.MaxPool2d and layout == (2, 1, 0, 1, False)


class NeighboursMaxPool2d(nn.Module):
    """The largest of each 2 x 2 pixels, channels last in a third of the time of torch's pool or less."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h - 1, w - 1)."""
        lines = torch.maximum(x[:, :, :-1], x[:, :, 1:])
        return torch.maximum(lines[..., :-1], lines[..., 1:])


class FilteredConv2d(nn.Module):
    """What a convolution that :func:`.convolution.can_filter` computes, by minimal filtering.

    The transformed weights take four times the memory of the weights, which are kept for where a graph is recorded.
    """

    values: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        values = winograd_weight(conv.weight.detach().double()).to(conv.weight.dtype)
        self.register_buffer('values', values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w), channels last."""
        if x.device.type != 'cpu' or is_recorded(x, self.weight):
            return F.conv2d(x, self.weight, self.bias, padding=1)
        return winograd_conv2d(x, self.values, self.bias)


class PackedConv2d(nn.Module):
    """What a convolution computes, and the activation after it, in one call of oneDNN.

    A plain convolution lays its weights out anew in every call. Here it is done once for each of the last four shapes
    of the input.
    """

    activation: str | None = None
    """After it: 'relu', 'silu' or 'hardtanh'; None: none."""
    bounds: tuple[float, ...] = ()
    """Least and largest value that 'hardtanh' gives."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.layout = conv.padding, conv.stride, conv.dilation, conv.groups
        self._packed = TableCache(size=4)  # each holds as much as the weights

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h', w')."""
        if x.device.type != 'cpu' or is_recorded(x, self.weight):
            padding, stride, dilation, groups = self.layout
            y = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
            return y if self.activation is None else getattr(F, self.activation)(y, *self.bounds)
        weight = self._packed((x.shape, x.dtype), lambda: pack_convolution(self.weight, *self.layout, x.shape))
        activation = PACKED_ACTIVATIONS[self.activation], self.bounds
        return run_packed_convolution(x, weight, self.bias, *self.layout, *activation)


class PackedLinear(nn.Module):
    """What a linear layer computes, by oneDNN; its weights are laid out once for each of the last four row counts."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._packed = TableCache(size=4)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., D)."""
        here = x.device.type == 'cpu' and x.dtype == self.weight.dtype and x.numel() > 0
        if not here or is_recorded(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        rows = x.reshape(-1, x.shape[-1])
        weight = self._packed(rows.shape[0], lambda: pack_linear(self.weight, rows.shape[0]))
        return run_packed_linear(rows, weight, self.bias).view(*x.shape[:-1], -1)

"""Prediction on CPUs by layers whose weights are transformed once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..compat import pack_convolution, pack_linear, packs_weights, run_packed_convolution, run_packed_linear
from ..core import TableCache
from ..core.graph_capture import is_recorded
from ..models.layers import DotProductAttention
from .convolution import can_filter, filtered
from .products import ProductAttention

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: 'relu', nn.SiLU: 'swish', nn.Hardtanh: 'hardtanh'}
"""What oneDNN's convolutions take over, by its names there."""


def accelerate_prediction(module: nn.Module) -> None:
    """Put faster layers in the place of convolutions, linear layers and attention, for prediction on a CPU.

    Wide 3x3 convolutions in single precision are computed by minimal filtering; others, with a ReLU, SiLU or Hardtanh
    that follows in a ``Sequential``, and linear layers by oneDNN with weights packed once, where torch offers that;
    attention as :class:`.products.ProductAttention` does; max pools of neighbours by maxima. Subclasses are left alone.
    """
    last: nn.Module | None = None  # what an activation follows at once
    for name, child in module.named_children():
        if isinstance(child, nn.Identity):
            continue
        if isinstance(last, PackedConv2d) and type(child) in _ACTIVATIONS:
            bounds = (child.min_val, child.max_val) if isinstance(child, nn.Hardtanh) else ()
            last.activation, last.fused = child, (_ACTIVATIONS[type(child)], bounds)
            faster: nn.Module = nn.Identity()
        else:
            faster = _faster(child)
        last = faster if isinstance(module, nn.Sequential) else None
        setattr(module, name, faster)
        if faster is child:
            accelerate_prediction(child)


def _faster(layer: nn.Module) -> nn.Module:
    """What takes a layer's place, or the layer itself."""
    if type(layer) is DotProductAttention:
        layer.__class__ = ProductAttention
    elif type(layer) is nn.MaxPool2d:
        layout = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.return_indices
        return NeighboursMaxPool2d() if layout == (2, 1, 0, 1, False) else layer
    elif type(layer) is nn.Conv2d and can_filter(layer) and layer.weight.dtype == torch.float32:
        return filtered(layer)
    elif type(layer) is nn.Conv2d and layer.padding_mode == 'zeros' and not isinstance(layer.padding, str):
        return PackedConv2d(layer) if packs_weights(layer.weight.dtype) else layer
    elif type(layer) is nn.Linear and packs_weights(layer.weight.dtype):
        return PackedLinear(layer)
    return layer


class NeighboursMaxPool2d(nn.Module):
    """The largest of each 2 x 2 pixels, channels last in a third of the time of torch's pool or less."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h - 1, w - 1)."""
        lines = torch.maximum(x[:, :, :-1], x[:, :, 1:])
        return torch.maximum(lines[..., :-1], lines[..., 1:])


class PackedConv2d(nn.Module):
    """A convolution and the activation after it, by oneDNN; weights are laid out once for each of four input shapes."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.layout = conv.padding, conv.stride, conv.dilation, conv.groups
        self.activation: nn.Module = nn.Identity()
        self.fused: tuple[str, tuple[float, ...]] = 'none', ()  # the activation as oneDNN knows it, and its bounds
        self._packed = TableCache(size=4)  # each holds as much as the weights

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h', w')."""
        if x.device.type != 'cpu' or is_recorded(x, self.weight):
            padding, stride, dilation, groups = self.layout
            return self.activation(F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups))
        weight = self._packed((x.shape, x.dtype), lambda: pack_convolution(self.weight, *self.layout, x.shape))
        return run_packed_convolution(x, weight, self.bias, *self.layout, *self.fused)


class PackedLinear(nn.Module):
    """A linear layer by oneDNN; its weights are laid out once for each of the last four row counts."""

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

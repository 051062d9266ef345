"""Layers whose weights lie as the CPU's library wants them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..compat import PACKED_ACTIVATIONS, pack_convolution, pack_linear, run_packed_convolution, run_packed_linear
from ..core import TableCache
from ..core.recording import is_recorded

_ACTIVATIONS: dict[str, type[nn.Module]] = {'relu': nn.ReLU, 'silu': nn.SiLU}


class PackedConv2d(nn.Module):
    """What a :class:`torch.nn.Conv2d` computes, and the activation after it, in one call of oneDNN.

    A plain convolution lays its weights out anew in every call. Here it is done once for each of the last four shapes
    of the input.

    Args:
        conv: the convolution.
        activation: after it, 'relu' or 'silu'; None: none.
    """

    def __init__(self, conv: nn.Conv2d, activation: str | None = None) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.groups, self.activation = conv.groups, activation
        self._packed = TableCache(size=4)  # each holds as much as the weights

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w)."""
        layout = self.padding, self.stride, self.dilation, self.groups
        if x.device.type != 'cpu' or is_recorded(x, self.weight):
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            return y if self.activation is None else getattr(F, self.activation)(y)
        weight = self._packed((x.shape, x.dtype), lambda: pack_convolution(self.weight, *layout, x.shape))
        return run_packed_convolution(x, weight, self.bias, *layout, PACKED_ACTIVATIONS[self.activation])


class PackedLinear(nn.Module):
    """What a :class:`torch.nn.Linear` computes, by oneDNN.

    Its weights are laid out once for each of the last four numbers of rows.

    Args:
        linear: the layer.
    """

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
        weight = self._packed(len(rows), lambda: pack_linear(self.weight, len(rows)))
        return run_packed_linear(rows, weight, self.bias).view(*x.shape[:-1], -1)


def can_pack(conv: nn.Conv2d) -> bool:
    """Whether :class:`PackedConv2d` computes the same."""
    return conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)


def activation_of(module: nn.Module) -> str | None:
    """The name of an activation that a convolution can take over; None: this is none of them."""
    return next((name for name, kind in _ACTIVATIONS.items() if type(module) is kind), None)

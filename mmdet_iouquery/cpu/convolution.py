"""Convolutions by minimal filtering."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..compat import autocast_dtype
from ..core.graph_capture import is_captured, is_recorded
from .winograd import TILE, winograd_conv2d, winograd_gradients, winograd_weight

_NARROWEST = 64  # channels on both sides: with fewer, products are too small
_FEWEST = 200  # tiles in a batch: with fewer, transforming the weights takes longer than it saves


def can_filter(conv: nn.Conv2d) -> bool:
    """Whether minimal filtering computes the same, and is faster: enough channels for matrix products to pay."""
    layout = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode
    plain = layout == ((3, 3), (1, 1), (1, 1), (1, 1), 1, 'zeros')
    return plain and min(conv.in_channels, conv.out_channels) >= _NARROWEST


def is_trained(layer: nn.Conv2d | nn.Linear, x: Tensor) -> bool:
    """Whether a layer learns of an input on a CPU, in their own type of numbers and in no graph but autograd's."""
    learns = layer.training and torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad)
    here = x.device.type == layer.weight.device.type == 'cpu' and not is_captured()
    return learns and here and x.dtype == layer.weight.dtype and autocast_dtype() is None


class WinogradConv2d(nn.Conv2d):
    """A convolution, see :func:`can_filter`, by minimal filtering.

    It is trained so, forward and backward, in single or double precision, of maps that together have 200 tiles of 4 x 4
    pixels, and predicts so once :func:`filtered`. Elsewhere (other devices, smaller maps, autocast, captured graphs)
    it is torch's. Rounding differs by 3e-6 of the largest output in single precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w)."""
        values = getattr(self, 'values', None)
        if values is not None and x.device.type == 'cpu' and not is_recorded(x, self.weight):
            return winograd_conv2d(x, values, self.bias)
        if self.is_filtered(x):
            return _Filtered.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return super().forward(x)

    def is_filtered(self, x: Tensor) -> bool:
        """Whether it is being trained, on an input for which there is a faster way."""
        exact = is_trained(self, x) and x.dtype in (torch.float32, torch.float64)
        return exact and x.shape[0] * math.prod(-(-n // TILE) for n in x.shape[2:]) >= _FEWEST


def filtered(conv: nn.Conv2d) -> nn.Module:
    """The convolution, which then predicts so as well: by its ``values``, which take four times the weights' memory."""
    conv.__class__ = WinogradConv2d
    values = winograd_weight(conv.weight.detach().double()).to(conv.weight.dtype)
    conv.register_buffer('values', values, persistent=False)
    return conv


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return winograd_conv2d(x, winograd_weight(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        gradients = winograd_gradients(x, winograd_weight(weight), grad, of_input, of_weight)
        return *gradients, grad.sum((0, 2, 3)) if of_bias else None

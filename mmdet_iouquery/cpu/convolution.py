"""Convolutions that are trained by minimal filtering."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..core.graph_capture import is_captured
from .winograd import TILE, winograd_conv2d, winograd_gradients, winograd_weight

_NARROWEST = 64  # channels on both sides: with fewer, products are too small
_FEWEST = 200  # tiles in a batch: with fewer, transforming the weights takes longer than it saves


def is_plain(conv: nn.Conv2d) -> bool:
    """Whether its arguments are all that ``F.conv2d`` needs."""
    return conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)


def can_filter(conv: nn.Conv2d) -> bool:
    """Whether minimal filtering computes the same, and is faster: enough channels for matrix products to pay."""
    layout = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
    plain = layout == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and is_plain(conv)
    return plain and min(conv.in_channels, conv.out_channels) >= _NARROWEST


def autocast_dtype() -> torch.dtype | None:
    """The type of numbers that autocast computes in on CPUs at this point; None: there is no autocast."""
    try:
        return torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else None
    except (AttributeError, TypeError):  # before torch 2.4
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None


class WinogradConv2d(nn.Conv2d):
    """A convolution that :func:`can_filter`, trained by minimal filtering, forward and backward.

    That is in single or double precision, in training mode, on maps that together have 200 tiles of 4 x 4 pixels;
    everywhere else (prediction, other devices, smaller maps, autocast, compiled, exported or traced graphs) this is
    torch's convolution. Rounding differs, by 3e-6 of the largest output in single precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w)."""
        if self.is_filtered(x):
            return _Filtered.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return super().forward(x)

    def is_filtered(self, x: Tensor) -> bool:
        """Whether it is being trained, on an input for which there is a faster way."""
        trained = self.training and torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        here = x.device.type == self.weight.device.type == 'cpu' and not is_captured()
        exact = x.dtype == self.weight.dtype and x.dtype in (torch.float32, torch.float64) and autocast_dtype() is None
        return trained and here and exact and x.shape[0] * math.prod(-(-n // TILE) for n in x.shape[2:]) >= _FEWEST


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

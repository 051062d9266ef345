"""Convolutions that are trained on CPUs with fewer multiplications."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...core.precision import autocasts_on_cpu
from ...core.recording import is_captured
from ...core.windows import windows
from ...core.winograd import winograd_conv2d, winograd_gradients, winograd_weight

_NARROWEST = {4: 64, 2: 256}  # channels on both sides, by the side of squares: with fewer, products are too small
_FEWEST = 200  # squares in a batch: with fewer, transforming the weights takes longer than it saves
_PIECE = 2**20  # numbers of windows at a time: they stay in the cache
_MOST = 6 * 2**20  # numbers of the transformed weights at a time: 24 MiB, as glibc maps 32 MiB and more anew each time


@MODELS.register_module()  # mmengine's registry, as mmcv looks convolutions up from any scope
class WinogradConv2d(nn.Conv2d):
    """torch's ``Conv2d``, with gradients that take less time where wide 3x3 kernels are trained on a CPU.

    Those of stride 1 are computed by minimal filtering, forward and backward (:mod:`mmdet_iouquery.core.winograd`),
    from 64 channels on: on maps that together have 200 squares of 4 x 4 pixels, or with 256 channels 200 of 2 x 2. Of
    those of stride 2, the gradient for the weights is a matrix product. That is in single or double precision, in
    training mode; everywhere else (prediction, other kernels and devices, smaller maps, autocast, compiled, exported or
    traced graphs) this is torch's convolution. Rounding differs, by 3e-6 of the largest output in single precision.

    In mmdet's own parts: ``conv_cfg=dict(type='WinogradConv2d')``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h', w')."""
        if self.is_trained_faster(x):
            return _Trained.apply(x, self.weight, self.bias, self.stride[0])
        return super().forward(x)

    def is_trained_faster(self, x: Tensor) -> bool:
        """Whether it is being trained, on an input for which there is a faster way."""
        trained = self.training and torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        here = x.device.type == self.weight.device.type == 'cpu' and not is_captured()
        exact = x.dtype == self.weight.dtype and x.dtype in (torch.float32, torch.float64) and not autocasts_on_cpu()
        return trained and here and exact and trains_faster(self, x)


def _is_plain_3x3(conv: nn.Conv2d) -> bool:
    """Whether a convolution of 3x3 has no padding, dilation or groups but the common ones."""
    return (
        conv.kernel_size == (3, 3)
        and conv.padding == conv.dilation == (1, 1)
        and conv.padding_mode == 'zeros'
        and conv.groups == 1
    )


def can_winograd(conv: nn.Conv2d) -> bool:
    """Whether minimal filtering computes the same, and is faster: enough channels for matrix products to pay."""
    return _is_plain_3x3(conv) and conv.stride == (1, 1) and _channels(conv) >= min(_NARROWEST.values())


def trains_faster(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether gradients of ours are faster than torch's on CPUs, for inputs of the size of ``x``."""
    if _is_plain_3x3(conv) and conv.stride == (2, 2):
        return _channels(conv) >= 64
    return can_winograd(conv) and _side(x, _channels(conv)) > 0


def _channels(conv: nn.Conv2d) -> int:
    return min(conv.in_channels, conv.out_channels)


def _side(x: Tensor, channels: int) -> int:
    """That of the largest squares that pay, or 0."""
    for side, narrowest in _NARROWEST.items():
        squares = len(x) * math.prod(-(-pixels // side) for pixels in x.shape[-2:])
        if channels >= narrowest and squares >= _FEWEST:
            return side
    return 0


class _Trained(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        y = trained_output(x, weight, stride)
        return y if bias is None else y.add_(bias[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_input, of_weight, of_bias, _ = ctx.needs_input_grad
        found = trained_gradients(x, weight, grad, ctx.stride, of_input, of_weight)
        return *found, grad.sum((0, 2, 3)) if of_bias else None, None


def trained_output(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The convolution of a :class:`WinogradConv2d` that :meth:`~WinogradConv2d.is_trained_faster`, without a graph.

    Where there are many channels, some of the results' at a time: the transformed weights are never larger than what
    the C library hands out again without asking the system for fresh pages.
    """
    if stride != 1:
        return F.conv2d(x, weight, None, stride, padding=1)
    side = _side(x, min(weight.shape[:2]))
    return _joined([winograd_conv2d(x, winograd_weight(part, side)) for part in _parts(weight, side)], dim=1)


def trained_gradients(
    x: Tensor, weight: Tensor, grad: Tensor, stride: int, of_input: bool = True, of_weight: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of :func:`trained_output` for input and weights, where asked for."""
    if stride == 1:
        return _filtered_gradients(x, weight, grad, of_input, of_weight)
    inputs = weights = None
    if of_input:
        layout = [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1
        inputs = torch.ops.aten.convolution_backward(grad, x, weight, None, *layout, [True, False, False])[0]
    if of_weight:
        weights = _weight_gradient(x, grad, stride)
    return inputs, weights


def _filtered_gradients(
    x: Tensor, weight: Tensor, grad: Tensor, of_input: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    side = _side(x, min(weight.shape[:2]))
    parts = _parts(weight, side)
    of_parts = grad.split([len(part) for part in parts], dim=1)
    found = [
        winograd_gradients(x, winograd_weight(part, side), of_part, of_input, of_weight)
        for part, of_part in zip(parts, of_parts)
    ]
    inputs, weights = ([part for part in several if part is not None] for several in zip(*found))
    return reduce(torch.add, inputs) if of_input else None, _joined(weights, dim=0) if of_weight else None


def _parts(weight: Tensor, side: int) -> tuple[Tensor, ...]:
    """Some of the kernels (D, C, 3, 3) at a time."""
    return weight.split(max(1, _MOST // ((side + 2) ** 2 * weight.shape[1])))


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _weight_gradient(x: Tensor, grad: Tensor, stride: int) -> Tensor:
    """(D, C, 3, 3), of the input (B, C, h, w) and the output's gradient (B, D, h', w'), some rows at a time."""
    channels, (height, width) = x.shape[1], grad.shape[2:]
    seen = windows(x, height, width, side=3, stride=stride, padding=(1, 1)).permute(2, 3, 4, 0, 1, 5)
    total = x.new_zeros(grad.shape[1], 9 * channels)
    step = max(1, _PIECE // (width * 9 * channels))
    for image, of_image in zip(seen, grad.permute(0, 2, 3, 1)):
        for some, of_some in zip(image.split(step), of_image.split(step)):
            total.addmm_(of_some.flatten(0, 1).t(), some.reshape(-1, 9 * channels))
    return total.view(-1, 3, 3, channels).permute(0, 3, 1, 2)

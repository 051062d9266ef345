"""Batch norms together with what follows them, for training on CPUs: fewer memory passes, less kept for backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...core.recording import is_captured
from .winograd_conv import WinogradConv2d, trained_gradients, trained_output

_POOL = 3, 2, 1  # kernel size, stride, padding


def norm_silu(maps: Sequence[Tensor], norms: Sequence[nn.BatchNorm2d]) -> Tensor:
    """The SiLU of the sum of maps (B, C, h, w), each normalised by a norm of its own, see :func:`can_fuse`.

    Kept for the backward pass are the maps alone; the sum, which SiLU's gradient needs, is computed again.
    """
    parameters = [part for norm in norms for part in (norm.weight, norm.bias)]
    return _NormSiLU.apply(list(norms), *maps, *parameters)


def norm_relu_pool(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """A norm, ReLU and max pooling of 3x3 with stride 2: (B, C, h, w) to (B, C, ceil(h / 2), ceil(w / 2)).

    The norm's affine map, and ReLU, are monotone, so they may as well follow the pooling, on a quarter of the numbers;
    where a channel's weight is negative, its smallest number is taken instead. See :func:`can_fuse`.
    """
    return _NormReLUPool.apply(norm, x, norm.weight, norm.bias)


def norm_relu_conv(x: Tensor, norm: nn.BatchNorm2d, conv: nn.Conv2d) -> Tensor:
    """A norm, ReLU and a convolution without bias, of which only ``x`` is kept for the backward pass.

    What the convolution was given is computed again, which costs a memory pass. See :func:`can_fuse`.
    """
    faster = isinstance(conv, WinogradConv2d) and conv.is_trained_faster(x)
    return _NormReLUConv.apply(norm, conv, faster, x, norm.weight, norm.bias, conv.weight)


def can_fuse(norm: nn.Module, x: Tensor) -> bool:
    """Whether a norm is trained by these functions: a plain batch norm, by its batch's statistics, on a CPU."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and torch.is_grad_enabled()
        and x.device.type == 'cpu'
        and x.dtype != torch.float16  # its range is watched between the parts
        and not is_captured()
    )


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norms: list[nn.BatchNorm2d], *given: Tensor) -> Tensor:
        maps = given[: len(norms)]
        normed = [_normalise(norm, x) for norm, x in zip(norms, maps)]
        statistics = [part for _, *both in normed for part in both]
        ctx.norms = norms
        ctx.save_for_backward(*given, *statistics)
        return F.silu(_sum([y for y, *_ in normed]), inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        n, saved = len(ctx.norms), ctx.saved_tensors
        maps, parameters, statistics = saved[:n], saved[n : 3 * n], saved[3 * n :]
        each = list(zip(ctx.norms, maps, *(parts[i::2] for parts in (parameters, statistics) for i in range(2))))
        total = _sum([_again(norm, *others) for norm, *others in each])
        grad = torch.ops.aten.silu_backward.grad_input(grad, total, grad_input=total)
        found = [_norm_backward(norm, grad, x, weight, *stats) for norm, x, weight, _, *stats in each]
        return None, *(of_map for of_map, *_ in found), *(part for _, *both in found for part in both)


class _NormReLUConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, norm: nn.BatchNorm2d, conv: nn.Conv2d, faster: bool, x: Tensor, *parameters: Tensor
    ) -> Tensor:
        y, *statistics = _normalise(norm, x)
        ctx.norm, ctx.conv, ctx.faster, kernel = norm, conv, faster, parameters[-1]
        ctx.save_for_backward(x, *parameters, *statistics)
        if faster:
            return trained_output(y.relu_(), kernel, conv.stride[0])
        return F.conv2d(y.relu_(), kernel, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, kernel, *statistics = ctx.saved_tensors
        norm, conv, of_kernel = ctx.norm, ctx.conv, ctx.needs_input_grad[-1]
        y = _again(norm, x, weight, bias, *statistics).relu_()
        of_y: Tensor | None
        if ctx.faster:
            of_y, found = trained_gradients(y, kernel, grad, conv.stride[0], of_weight=of_kernel)
        else:
            layout = conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups
            of_y, found, _ = torch.ops.aten.convolution_backward(
                grad, y, kernel.to(grad.dtype), None, *layout, [True, of_kernel, False]
            )
        grad = torch.ops.aten.threshold_backward.grad_input(of_y, y, 0, grad_input=of_y)  # nobody else's
        del y  # its memory is the next one's
        found = None if found is None else found.to(kernel.dtype)
        return None, None, None, *_norm_backward(norm, grad, x, weight, *statistics), found


class _NormReLUPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm2d, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, var = torch.batch_norm_update_stats(x, norm.running_mean, norm.running_var, float(norm.momentum or 0))
        _count(norm)
        if (weight < 0).any():
            sign = torch.where(weight < 0, -1.0, 1.0).to(x.dtype)[:, None, None]
            pooled, index = F.max_pool2d(x * sign, *_POOL, return_indices=True)
            pooled *= sign
        else:
            pooled, index = F.max_pool2d(x, *_POOL, return_indices=True)
        y = torch.native_batch_norm(pooled, weight, bias, mean, var, False, 0.0, norm.eps)[0].relu_()
        ctx.eps = norm.eps
        ctx.save_for_backward(x, weight, mean, var, pooled, index, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, pooled, index, y = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
        chosen, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            grad, pooled, weight, mean, var, mean, var, False, ctx.eps, [True, True, True]
        )
        # what the pooling left out has a gradient too: through the mean and the variance that it is part of
        count, invstd = x.numel() // x.shape[1], (var + ctx.eps).rsqrt()
        slope = -weight * invstd.square() * of_weight / count
        level = -weight * invstd * of_bias / count - slope * mean
        dense = torch.ops.aten.max_pool2d_with_indices_backward(
            chosen, x, *([side, side] for side in _POOL), [1, 1], False, index
        )
        dense.addcmul_(x, slope.to(x.dtype)[:, None, None]).add_(level.to(x.dtype)[:, None, None])
        return None, dense, of_weight, of_bias


def _normalise(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The map, normalised by its own statistics, and these: mean and inverse standard deviation (C,)."""
    _count(norm)
    momentum = float(norm.momentum or 0)
    return torch.native_batch_norm(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, momentum, norm.eps
    )


def _again(norm: nn.BatchNorm2d, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor) -> Tensor:
    """What :func:`_normalise` gave, from the statistics it gave."""
    var = invstd.pow(-2) - norm.eps
    return torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, norm.eps)[0]


def _norm_backward(
    norm: nn.BatchNorm2d, grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, invstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a norm's map, weight and bias."""
    return torch.ops.aten.native_batch_norm_backward(
        grad, x, weight, norm.running_mean, norm.running_var, mean, invstd, True, norm.eps, [True, True, True]
    )


def _count(norm: nn.BatchNorm2d) -> None:
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)


def _sum(maps: list[Tensor]) -> Tensor:
    total = maps[0]
    for other in maps[1:]:
        total = total.add_(other)
    return total

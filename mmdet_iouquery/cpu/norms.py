"""Batch norms trained together with the activation that follows: less kept for the backward pass, fewer passes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..compat import batch_norm, batch_norm_gradients, relu_gradient, silu_gradient
from ..core.graph_capture import is_captured
from .convolution import autocast_dtype


def can_fuse(norm: nn.Module, x: Tensor) -> bool:
    """Whether a norm is trained here: a plain batch norm, by its batch's statistics, on a CPU.

    Args:
        norm: the norm.
        x: its input, or that of the convolution before it.
    """
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and torch.is_grad_enabled()
        and x.device.type == 'cpu'
        and torch.float16 not in (x.dtype, autocast_dtype())  # its range is watched between the layers
        and not is_captured()
    )


def norm_silu(maps: Sequence[Tensor], norms: Sequence[Any]) -> Tensor:
    """The SiLU of the sum of maps (B, C, h, w), each normalised by a norm of its own, see :func:`can_fuse`.

    Kept for the backward pass are the maps alone; the sum, which SiLU's gradient needs, is computed again.
    """
    parameters = [parameter for norm in norms for parameter in (norm.weight, norm.bias)]
    return _NormSiLU.apply(list(norms), *maps, *parameters)  # type: ignore[no-untyped-call]


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norms: list[nn.BatchNorm2d], *tensors: Tensor) -> Tensor:
        normed = [_normalise(norm, x) for norm, x in zip(norms, tensors)]
        ctx.norms = norms
        ctx.save_for_backward(*tensors, *(tensor for _, *statistics in normed for tensor in statistics))
        return F.silu(reduce(Tensor.add_, [y for y, *_ in normed]), inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        n, saved = len(ctx.norms), ctx.saved_tensors
        maps, parameters, statistics = saved[:n], saved[n : 3 * n], saved[3 * n :]
        # norm, map, weight, bias, mean and inverse deviation of each
        branches = list(zip(ctx.norms, maps, parameters[::2], parameters[1::2], statistics[::2], statistics[1::2]))
        total = reduce(Tensor.add_, [_normalise_again(*branch) for branch in branches])
        grad = silu_gradient(grad, total)
        gradients = [_norm_backward(norm, grad, x, weight, *stats) for norm, x, weight, _, *stats in branches]
        return None, *(of_map for of_map, *_ in gradients), *(tensor for _, *both in gradients for tensor in both)


def norm_relu_affine(x: Tensor, norm: Any, affine: Any) -> Tensor:
    """A map (B, C, h, w) through a norm, see :func:`can_fuse`, a ReLU and a learnable affine.

    Kept for the backward pass is the map alone; what the ReLU was given is made again.
    """
    parameters = norm.weight, norm.bias, affine.scale, affine.bias
    return _NormReLUAffine.apply(norm, x, *parameters)  # type: ignore[no-untyped-call]


class _NormReLUAffine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm2d, x: Tensor, *parameters: Tensor) -> Tensor:
        y, *statistics = _normalise(norm, x)
        ctx.norm = norm
        ctx.save_for_backward(x, *parameters, *statistics)
        _, _, scale, shift = parameters
        return y.relu_().mul_(scale.to(y.dtype)).add_(shift.to(y.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, scale, shift, mean, invstd = ctx.saved_tensors
        passed = relu_gradient(grad, _normalise_again(ctx.norm, x, weight, bias, mean, invstd))  # still to be scaled
        of_map, of_weight, of_bias = _norm_backward(ctx.norm, passed, x, weight * scale, mean, invstd)
        # what passed, times what the ReLU gave: with the norm's own two sums that is no pass over the map
        of_scale = (torch.dot(of_weight, weight) + torch.dot(of_bias, bias)).view(1)
        of_shift = grad.sum().to(shift.dtype).view(1)
        return None, of_map, of_weight * scale, of_bias * scale, of_scale, of_shift


def _normalise(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The map, normalised by its own statistics, and these: mean and inverse standard deviation (C,)."""
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    running = norm.running_mean, norm.running_var
    return batch_norm(x, norm.weight, norm.bias, *running, momentum=float(norm.momentum or 0), eps=norm.eps)


def _normalise_again(
    norm: nn.BatchNorm2d, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor
) -> Tensor:
    """What :func:`_normalise` gave, from the statistics it gave."""
    var = invstd.pow(-2) - norm.eps
    return batch_norm(x, weight, bias, mean, var, momentum=None, eps=norm.eps)[0]


def _norm_backward(
    norm: nn.BatchNorm2d, grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, invstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a norm's map, weight and bias."""
    running = norm.running_mean, norm.running_var
    return batch_norm_gradients(grad, x, weight, (mean, invstd), running, norm.eps)

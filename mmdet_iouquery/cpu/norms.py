"""Batch norms trained together with the activation that follows: less kept for the backward pass, fewer passes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..compat import (
    autocast_dtype,
    batch_norm_again,
    batch_norm_gradients,
    relu_gradient,
    silu_gradient,
    trained_batch_norm,
)
from ..core.graph_capture import is_captured
from ..models.layers import ConvNormAct, LearnableAffine, keep_layout
from ..models.necks.fusion import RepVGGBlock


def can_fuse(norm: nn.Module, x: Tensor) -> bool:
    """Whether a norm, of x or of a convolution of x, is a plain batch norm that is trained on a CPU."""
    plain = type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats and norm.momentum is not None
    here = x.device.type == 'cpu' and torch.is_grad_enabled() and not is_captured()
    in_range = torch.float16 not in (x.dtype, autocast_dtype())  # float16 is watched between the layers
    return plain and norm.training and here and in_range


class FusedConvNormAct(ConvNormAct):
    """The norm and the SiLU, or the ReLU and the affine, in one."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h', w')."""
        conv, norm, *act = self
        kinds = [type(layer) for layer in act]
        if kinds == [nn.SiLU] and can_fuse(norm, x):
            return norm_silu([conv(x)], [norm])
        if kinds == [nn.ReLU, LearnableAffine] and can_fuse(norm, x):
            parameters = norm.weight, norm.bias, act[1].scale, act[1].bias
            return _NormReLUAffine.apply(norm, conv(x), *parameters)  # type: ignore[no-untyped-call]
        y = super().forward(x)
        if y.requires_grad and not is_captured():
            keep_layout(y)  # from a view of joined maps, torch's batch norm takes its gradient ten times as slowly
        return y


class FusedRepVGGBlock(RepVGGBlock):
    """Both norms, the sum and the SiLU in one."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D, h, w)."""
        (conv1, norm1), (conv2, norm2) = self.conv1, self.conv2
        if type(self.act) is nn.SiLU and can_fuse(norm1, x) and can_fuse(norm2, x):
            return norm_silu([conv1(x), conv2(x)], [norm1, norm2])
        return super().forward(x)


def norm_silu(maps: Sequence[Tensor], norms: Sequence[Any]) -> Tensor:
    """The SiLU of the sum of maps (B, C, h, w), each through a norm, see :func:`can_fuse`; kept are the maps alone."""
    parameters = [parameter for norm in norms for parameter in (norm.weight, norm.bias)]
    return _NormSiLU.apply(list(norms), *maps, *parameters)  # type: ignore[no-untyped-call]


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, norms: list[nn.BatchNorm2d], *tensors: Tensor) -> Tensor:
        normed = [trained_batch_norm(norm, x) for norm, x in zip(norms, tensors)]
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
        grad = silu_gradient(grad, reduce(Tensor.add_, [batch_norm_again(*branch) for branch in branches]))
        gradients = [batch_norm_gradients(norm, grad, x, weight, *stats) for norm, x, weight, _, *stats in branches]
        return None, *(of_map for of_map, *_ in gradients), *(tensor for _, *both in gradients for tensor in both)


class _NormReLUAffine(torch.autograd.Function):
    @staticmethod  # kept is the map alone
    def forward(ctx: Any, norm: nn.BatchNorm2d, x: Tensor, *parameters: Tensor) -> Tensor:
        y, *statistics = trained_batch_norm(norm, x)
        ctx.norm = norm
        ctx.save_for_backward(x, *parameters, *statistics)
        _, _, scale, shift = parameters
        return y.relu_().mul_(scale.to(y.dtype)).add_(shift.to(y.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, scale, shift, mean, invstd = ctx.saved_tensors
        passed = relu_gradient(grad, batch_norm_again(ctx.norm, x, weight, bias, mean, invstd))  # still to be scaled
        of_map, of_weight, of_bias = batch_norm_gradients(ctx.norm, passed, x, weight * scale, mean, invstd)
        # what passed, times what the ReLU gave: with the norm's own two sums that is no pass over the map
        of_scale = (torch.dot(of_weight, weight) + torch.dot(of_bias, bias)).view(1)
        of_shift = grad.sum().to(shift.dtype).view(1)
        return None, of_map, of_weight * scale, of_bias * scale, of_scale, of_shift

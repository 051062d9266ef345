"""Linear layers and attention by oneDNN's matrix products, forward and backward.

With AVX-512, on AMD's processors above all, these take half the time of the products that torch itself calls; with AVX2
they take as long, and are not used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..compat import packs_weights, run_packed_linear
from ..core.graph_capture import is_captured, is_recorded
from ..models.layers import DotProductAttention
from .convolution import autocast_dtype

_FEWEST = 10**7  # multiplications of a linear layer: of fewer, a call in Python costs as much as it saves
_MANY = 512  # keys: of fewer, torch's fused attention is as fast
_LANES = 16  # channels of a head that the fused form computes at a time
_ROWS = 192  # queries of which attention is computed at a time: their weights stay in the cache


def can_multiply(x: Tensor) -> bool:
    """Whether oneDNN computes products of a tensor here: single precision, on a CPU, in no graph but autograd's."""
    plain = x.device.type == 'cpu' and x.dtype == torch.float32 and autocast_dtype() is None and not is_captured()
    return plain and is_offered()


def is_offered() -> bool:
    """Whether torch has these products, and this processor the instructions with which they are the faster ones."""
    return torch.backends.cpu.get_cpu_capability() == 'AVX512' and packs_weights(torch.float32)


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` (M, N), of (M, K) and (N, K)."""
    return run_packed_linear(a, b, None)


class ProductLinear(nn.Linear):
    """A linear layer as it is trained; of few rows, elsewhere and in prediction it is torch's."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., D)."""
        if _is_trained(self, x):
            return _Linear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return super().forward(x)


class ProductConv2d(nn.Conv2d):
    """A convolution of single pixels as it is trained, see :func:`is_pointwise`, of maps that are channels last.

    On one thread torch computes it by other products than oneDNN's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w)."""
        if _is_trained(self, x) and x.is_contiguous(memory_format=torch.channels_last):
            y = _Linear.apply(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)  # type: ignore[no-untyped-call]
            return y.permute(0, 3, 1, 2)
        return super().forward(x)


def is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether each pixel of the output is a product with one of the input."""
    layout = conv.kernel_size, conv.stride, conv.padding, conv.groups
    return layout == ((1, 1), (1, 1), (0, 0), 1)


def _is_trained(layer: nn.Linear | nn.Conv2d, x: Tensor) -> bool:
    trained = layer.training and torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad)
    return trained and can_multiply(x) and x.numel() * layer.weight.shape[0] >= _FEWEST


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows, weight)
        ctx.shape = x.shape
        return run_packed_linear(rows, weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        grad = grad.reshape(-1, grad.shape[-1]).contiguous()
        return (
            product(grad, weight.t().contiguous()).view(ctx.shape) if of_input else None,
            _product_over_rows(grad, rows) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """``a.T @ b`` (M, N), of (R, M) and (R, N): what stands first is copied in the other order, so the narrower one."""
    return product(a.t(), b.t()) if a.shape[1] <= b.shape[1] else product(b.t(), a.t()).t()


class ProductAttention(DotProductAttention):
    """Attention in bfloat16, for which the fused form takes over twice the time, of many tokens, and of narrow heads.

    Of 1600 tokens of a ViT, oneDNN's products take two thirds of the fused form's time. In bfloat16 scores are rounded
    to bfloat16, as autocast rounds them in any attention that is not fused. The fused form takes a quarter less time
    for heads of fewer than 16 channels if they are filled up with zeros.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """As the parent's."""
        if self.dropout and self.training:
            return super().forward(query, key, value, allowed)
        if query.dtype == torch.bfloat16 and query.device.type == 'cpu' and not is_recorded(query, key, value):
            return _of_halves(query, key, value, allowed)
        if allowed is None and can_multiply(query) and key.shape[2] >= _MANY:
            return _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
        of_key, of_value = key.shape[-1], value.shape[-1]
        here = query.device.type == 'cpu' and query.dtype == torch.float32 and not is_captured()
        if max(of_key, of_value) < _LANES and here:
            query, key, value = (F.pad(x, (0, _LANES - x.shape[-1])) for x in (query, key, value))
            return super().forward(query * (_LANES / of_key) ** 0.5, key, value, allowed)[..., :of_value]
        return super().forward(query, key, value, allowed)


def _of_halves(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    batch_heads, scale = query.shape[:2], query.shape[-1] ** -0.5
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    if allowed is None:
        score = torch.bmm(query * scale, key.transpose(1, 2))
    else:
        bias = torch.zeros_like(allowed, dtype=query.dtype).masked_fill(~allowed, -torch.inf)
        bias = bias if bias.dim() == 2 else bias.expand(*batch_heads, -1, -1).flatten(0, 1)
        score = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale)
    return torch.bmm(score.softmax(-1), value).unflatten(0, batch_heads)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.scale = inputs[0].shape[-1] ** -0.5
        query, key, value = (x.flatten(0, 1).contiguous() for x in (inputs[0] * ctx.scale, *inputs[1:]))
        attended = query.new_empty(*query.shape[:2], value.shape[2])
        for q, k, v, target in zip(query, key, value.transpose(1, 2).contiguous(), attended):
            for rows, out in zip(q.split(_ROWS), target.split(_ROWS)):
                scores = product(rows, k)
                out.copy_(product(torch.softmax(scores, -1, out=scores), v))
        ctx.save_for_backward(query, key, value, attended)
        ctx.heads = inputs[0].shape[:2]
        return attended.unflatten(0, ctx.heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        query, key, value, attended = ctx.saved_tensors
        grad = grad.flatten(0, 1).contiguous()
        gradients = [torch.zeros_like(x) for x in (query, key, value)]
        own = (grad * attended).sum(-1, keepdim=True)
        for q, k, v, g, mean, of_q, of_k, of_v in zip(query, key, value, grad, own, *gradients):
            turned = k.t().contiguous()
            for i in range(0, len(q), _ROWS):
                part = slice(i, i + _ROWS)
                scores = product(q[part], k)
                weights = torch.softmax(scores, -1, out=scores)
                of_v += product(weights.t(), g[part].t())
                of_score = product(g[part], v).sub_(mean[part]).mul_(weights)
                of_q[part] = product(of_score, turned)
                of_k += product(of_score.t(), q[part].t())
        return tuple(x.unflatten(0, ctx.heads) for x in (gradients[0].mul_(ctx.scale), *gradients[1:]))

"""Linear layers and attention by oneDNN's matrix products, forward and backward, with activations computed again.

With AVX-512 these products take half the time of torch's own; with AVX2 they take as long, and are not used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..compat import autocast_dtype, packs_weights, run_packed_linear
from ..core.graph_capture import is_captured, is_recorded
from ..models.backbones.vit import UnbiasedKeys
from ..models.layers import MLP, DotProductAttention, SwiGLU
from .convolution import is_trained

_FEWEST = 10**7  # multiplications of a linear layer: of fewer, a call in Python costs as much as it saves
_MANY = 512  # keys: of fewer, torch's fused attention is as fast
_LANES = 16  # channels of a head that the fused form computes at a time
_ROWS = 192  # queries of which attention is computed at a time: their weights stay in the cache


def is_offered() -> bool:
    """Whether torch has these products, and this processor the instructions with which they are the faster ones."""
    return torch.backends.cpu.get_cpu_capability() == 'AVX512' and packs_weights(torch.float32)


class ProductLinear(nn.Linear):
    """A linear layer as it is trained; of few rows, elsewhere and in prediction it is torch's."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., D)."""
        pays = is_offered() and _is_large(self, x)
        return _linear(x, self.weight, self.bias) if pays else super().forward(x)


class ProductUnbiasedKeys(UnbiasedKeys):
    """As :class:`ProductLinear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., 3D)."""
        pays = is_offered() and _is_large(self, x)
        return _linear(x, self.weight, self.used_bias()) if pays else super().forward(x)


class ProductConv2d(nn.Conv2d):
    """A convolution of single pixels as it is trained, see :func:`is_pointwise`, of maps that are channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w)."""
        if is_offered() and _is_large(self, x) and x.is_contiguous(memory_format=torch.channels_last):
            return _linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return super().forward(x)


def is_pointwise(conv: nn.Conv2d) -> bool:
    """Whether each pixel of the output is a product with one of the input."""
    return (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)


def _is_large(layer: nn.Linear | nn.Conv2d, x: Tensor) -> bool:
    single = is_trained(layer, x) and x.dtype == torch.float32
    return single and x.numel() * layer.weight.shape[0] >= _FEWEST


class LeanMLP(MLP):
    """Two layers around a GELU; what it gives is computed again for gradients rather than kept."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        layers: Any = self.layers
        lean = type(self.act) is nn.GELU and len(layers) == 2 and _is_large(layers[0], x)
        return _linear(layers[0](x), layers[1].weight, layers[1].bias, self.act) if lean else super().forward(x)


class LeanSwiGLU(SwiGLU):
    """The gated features are computed again for gradients rather than kept."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        lean = _is_large(self.w12, x)
        return _linear(self.w12(x), self.w3.weight, self.w3.bias, self.act) if lean else super().forward(x)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, act: Any = nn.Identity()) -> Tensor:  # noqa: B008
    """A linear layer of its input, or of what an activation makes of that, which is not kept."""
    return _Linear.apply(x, weight, bias, act)  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, act: Any) -> Tensor:
        ctx.act = act
        ctx.save_for_backward(x, weight)
        return _product(act(x).reshape(-1, weight.shape[1]), weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given, weight = ctx.saved_tensors
        of_input, of_weight, of_bias, _ = ctx.needs_input_grad
        grad = grad.reshape(-1, weight.shape[0]).contiguous()
        with torch.enable_grad():
            given = given.detach().requires_grad_()
            x = ctx.act(given)
        passed = _product(grad, weight.t().contiguous()).view(x.shape) if of_input else None
        return (
            torch.autograd.grad(x, given, passed)[0] if of_input else None,
            _product_over_rows(grad, x.detach().reshape(-1, weight.shape[1])) if of_weight else None,
            grad.sum(0) if of_bias else None,
            None,
        )


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a @ b.T + bias``."""
    return run_packed_linear(a, b, bias) if is_offered() else F.linear(a, b, bias)


def _product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """``a.T @ b`` (M, N), of (R, M) and (R, N): what stands first is copied in the other order, so the narrower one."""
    return _product(a.t(), b.t()) if a.shape[1] <= b.shape[1] else _product(b.t(), a.t()).t()


class ProductAttention(DotProductAttention):
    """Attention in bfloat16, in half the fused form's time; of many tokens, in two thirds; of narrow heads.

    In bfloat16 scores are rounded, as autocast rounds them in any attention that is not fused. Heads of fewer than 16
    channels, filled up with zeros, are trained in three quarters of the time.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """As the parent's."""
        if query.device.type != 'cpu' or (self.dropout and self.training):
            return super().forward(query, key, value, allowed)
        of_key, of_value = key.shape[-1], value.shape[-1]
        if query.dtype == torch.bfloat16 and not is_recorded(query, key, value):
            score = torch.matmul(query * of_key**-0.5, key.transpose(2, 3))
            score = score if allowed is None else score.masked_fill(~allowed, -torch.inf)
            return torch.matmul(score.softmax(-1), value)
        single = query.dtype == torch.float32 and not is_captured()
        if single and allowed is None and autocast_dtype() is None and key.shape[2] >= _MANY and is_offered():
            return _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
        if single and max(of_key, of_value) < _LANES:
            query, key, value = (F.pad(x, (0, _LANES - x.shape[-1])) for x in (query, key, value))
            return super().forward(query * (_LANES / of_key) ** 0.5, key, value, allowed)[..., :of_value]
        return super().forward(query, key, value, allowed)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.scale = inputs[0].shape[-1] ** -0.5
        query, key, value = (x.flatten(0, 1).contiguous() for x in (inputs[0] * ctx.scale, *inputs[1:]))
        batch, ctx.heads, length, width = *inputs[0].shape[:3], value.shape[2]
        attended = query.new_empty(batch, length, ctx.heads, width).transpose(1, 2)  # as what joins the heads reads it
        for q, k, v, target in zip(query, key, value.transpose(1, 2).contiguous(), [a for x in attended for a in x]):
            for rows, out in zip(q.split(_ROWS), target.split(_ROWS)):
                scores = run_packed_linear(rows, k)
                out.copy_(run_packed_linear(torch.softmax(scores, -1, out=scores), v))
        ctx.save_for_backward(query, key, value, attended)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        query, key, value, attended = ctx.saved_tensors
        own = (grad * attended).sum(-1, keepdim=True).flatten(0, 1)
        grad = grad.flatten(0, 1).contiguous()
        gradients = torch.zeros_like(query), *(x.new_zeros(x.mT.shape) for x in (key, value))
        for q, k, v, g, mean, of_q, of_k, of_v in zip(query, key, value, grad, own, *gradients):
            turned = k.t().contiguous()
            for i in range(0, len(q), _ROWS):
                rows = slice(i, i + _ROWS)
                scores = run_packed_linear(q[rows], k)
                weights = torch.softmax(scores, -1, out=scores)
                of_v += _product_over_rows(g[rows], weights)
                of_score = run_packed_linear(g[rows], v).sub_(mean[rows]).mul_(weights)
                of_q[rows] = run_packed_linear(of_score, turned)
                of_k += _product_over_rows(q[rows], of_score)
        of_query, of_key, of_value = (x.unflatten(0, (-1, ctx.heads)) for x in gradients)
        return of_query.mul_(ctx.scale), of_key.mT, of_value.mT

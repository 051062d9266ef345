"""Root mean square layer normalisation (Zhang and Sennrich 2019), and the choice between it and layer norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core import as_float


class RMSNorm(nn.Module):
    """Divides features (..., D) by the root of their mean square, then scales each: ``x / sqrt(mean(x^2) + eps) * w``.

    Computed in single precision at least, where squares of float16 features do not overflow; the result is in the
    weight's type. Of operations that every exporter knows.
    """

    def __init__(self, embed_dims: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(embed_dims))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        x = as_float(x)
        normed = x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return (normed * as_float(self.weight)).to(self.weight.dtype)

    def extra_repr(self) -> str:
        return f'{self.weight.numel()}, eps={self.eps}'


NORMS: dict[str, type[nn.LayerNorm | RMSNorm]] = {'LN': nn.LayerNorm, 'RMS': RMSNorm}
"""Norms of tokens, by the names that a config gives them; each is built of the width D."""

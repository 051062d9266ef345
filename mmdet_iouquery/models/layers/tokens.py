"""From maps to tokens."""

from __future__ import annotations

from torch import Tensor


def as_tokens(x: Tensor) -> Tensor:
    """A map (B, D, h, w) as tokens (B, h * w, D), row by row.

    The gradient of a single picture is laid out anew on its way back: torch's batch norm on the CPU (seen in 2.13)
    silently computes wrong gradients, in training and evaluation mode, from one that comes as such a transposed view
    with a batch of 1.
    """
    if len(x) == 1 and x.requires_grad:
        x.register_hook(Tensor.contiguous)
    return x.flatten(2).transpose(1, 2)

"""Where torch's own functions are called after all, as a graph is made of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.jit import is_tracing  # type: ignore[attr-defined]  # documented, but in no __all__


def is_captured() -> bool:
    """Whether the code is being compiled, exported or traced (``torch.jit.trace``).

    The exports to ONNX do one or the other; asking ``torch.onnx`` would take ten times as long as both.
    """
    return torch.compiler.is_compiling() or is_tracing()


def is_recorded(*tensors: Tensor) -> bool:
    """Whether a graph is made of what is done: captured or, of these tensors, for gradients."""
    return is_captured() or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))

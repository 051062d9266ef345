"""Maps in memory, and from maps to tokens."""

from __future__ import annotations

import torch
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


def memory_format_of(x: Tensor) -> torch.memory_format:
    """How a map (B, D, h, w) lies in memory: channels last or, of anything else, contiguous."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def fastest_format(x: Tensor) -> torch.memory_format:
    """The layout in which convolutions of ``x`` are fastest: channels last on CPUs, and on GPUs in half precision.

    Convolutions and norms hand the layout of what they are given on to what they return.
    """
    half = x.dtype in (torch.float16, torch.bfloat16) or (x.is_cuda and torch.is_autocast_enabled())
    return torch.channels_last if x.device.type == 'cpu' or half else torch.contiguous_format

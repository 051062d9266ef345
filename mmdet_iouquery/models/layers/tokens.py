"""Maps in memory, and from maps to tokens."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor


def as_tokens(x: Tensor) -> Tensor:
    """A map (B, D, h, w) as tokens (B, h * w, D), row by row."""
    return keeping_layout(x).flatten(2).transpose(1, 2)


def keeping_layout(x: Tensor) -> Tensor:
    """The map itself, whose gradient is laid out as the map is: before it is seen in another way, or joined to others.

    From a gradient that is a view of something larger, torch's batch norm on the CPU (seen in 2.13) takes its own
    ten times as slowly; and silently wrong, in training and evaluation mode, from the transposed view of a single
    picture's, where the map is not channels last.
    """
    if x.requires_grad and (len(x) == 1 or not torch.compiler.is_compiling()):
        x.register_hook(partial(Tensor.contiguous, memory_format=memory_format_of(x)))
    return x


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

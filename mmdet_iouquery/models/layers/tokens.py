"""From maps to tokens, and back."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor


def as_tokens(x: Tensor) -> Tensor:
    """A map (B, D, h, w) as tokens (B, h * w, D), row by row.

    From a transposed gradient of a single image's map, torch's batch norm (seen in 2.13) silently computes a wrong one,
    in training and evaluation mode, where the map is not channels last.
    """
    if x.requires_grad and x.shape[0] == 1:
        keep_layout(x)
    return x.flatten(2).transpose(1, 2)


def as_map(tokens: Tensor, x: Tensor) -> Tensor:
    """Tokens (B, h * w, D) as the map (B, D, h, w) that they come from, laid out as ``x``, a map of this size, is.

    Transposed before it is reshaped, a single image's map would have strides from which torch cannot tell that channels
    come last, and all that is computed from it would have them first.
    """
    # torch 2.13 cannot compile a convolution of this view, of several images of any size (pytorch #188323)
    layout = torch.contiguous_format if torch.compiler.is_compiling() else layout_of(x)
    batch, channels, height, width = x.shape
    return tokens.reshape(batch, height, width, channels).permute(0, 3, 1, 2).contiguous(memory_format=layout)


def keep_layout(x: Tensor) -> None:
    """Have the gradient of a map laid out as the map is."""
    x.register_hook(partial(Tensor.contiguous, memory_format=layout_of(x)))


def layout_of(x: Tensor) -> torch.memory_format:
    """How a map (B, D, h, w) lies in memory: channels last or, of anything else, contiguous."""
    channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format

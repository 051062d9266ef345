"""What decoders have in common."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import bias_init_with_prob
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def class_head(embed_dims: int, num_classes: int) -> nn.Linear:
    """Logits that start at a probability of 0.01."""
    head = nn.Linear(embed_dims, num_classes)
    nn.init.constant_(head.bias, bias_init_with_prob(0.01))
    return head


def run_layer(layer: nn.Module, *inputs: Any, with_cp: bool) -> Tensor:
    """A layer's output; ``with_cp``: what it computes on the way is forgotten, and computed again for the gradient."""
    if with_cp and layer.training and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)


def resolve_depth(num_layers: int | None, available: int) -> int:
    """Number of layers to run, of ``available``: None and -1 all of them, -2 all but the last, and so on.

    Raises:
        ValueError: outside 1..available.
    """
    if num_layers is None:
        return available
    depth = num_layers if num_layers > 0 else available + 1 + num_layers
    if not 0 < depth <= available:
        raise ValueError(f'num_decoder_layers={num_layers}, but the decoder has {available} layers: 1..{available}')
    return depth

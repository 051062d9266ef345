"""What decoders' heads have in common."""

from __future__ import annotations

from mmengine.model import bias_init_with_prob
from torch import nn


def class_head(embed_dims: int, num_classes: int) -> nn.Linear:
    """Logits that start at a probability of 0.01."""
    head = nn.Linear(embed_dims, num_classes)
    nn.init.constant_(head.bias, bias_init_with_prob(0.01))
    return head


def resolve_depth(num_layers: int | None, available: int) -> int:
    """Number of layers to run, of ``available``: None and -1 all of them, -2 all but the last, and so on.

    Raises:
        ValueError: outside 1..available.
    """
    if num_layers is None:
        return available
    depth = num_layers if num_layers > 0 else available + 1 + num_layers
    if not 0 < depth <= available or num_layers == 0:
        raise ValueError(f'num_decoder_layers={num_layers}, but the decoder has {available} layers: 1..{available}')
    return depth

"""3x3 convolutions by minimal filtering, their weights transformed once."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.recording import is_recorded
from ..core.winograd import winograd_conv2d, winograd_weight


class PreparedWinogradConv2d(nn.Module):
    """What a :class:`torch.nn.Conv2d` of 3x3, stride 1 and padding 1 computes, by :func:`.winograd.winograd_conv2d`.

    It takes four times the memory of the weights, which are kept for where a graph is recorded. For prediction only.

    Args:
        conv: the convolution.
    """

    values: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        values = winograd_weight(conv.weight.detach().double()).to(conv.weight.dtype)
        self.register_buffer('values', values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w), channels last."""
        if x.device.type != 'cpu' or is_recorded(x, self.weight):
            return F.conv2d(x, self.weight, self.bias, padding=1)
        return winograd_conv2d(x, self.values, self.bias)

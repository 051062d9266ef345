"""Convolution, norm, activation."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import cast

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from torch import Tensor, nn

from ...core import within_range


class ConvNormAct(nn.Sequential):
    """A bias-free convolution with 'same' padding, a norm and, unless ``act_cfg`` is None, an activation.

    mmcv's ConvModule would draw the weights from another distribution than the reference trains from; this one leaves
    PyTorch's own, and takes no part in mmengine's ``init_weights``.

    Args:
        kernel_size: of an even one, the padding is half a pixel short on each side: the map shrinks by one pixel.
        groups: of the convolution; as many as channels: a depthwise one.
        learnable_affine: a :class:`LearnableAffine` after the activation; without one, none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        norm_cfg: dict,
        act_cfg: dict | None = None,
        learnable_affine: bool = False,
    ) -> None:
        padding = (kernel_size - 1) // 2
        conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, groups=groups, bias=False
        )
        layers = OrderedDict(conv=conv, norm=build_norm_layer(norm_cfg, out_channels)[1])
        if act_cfg is not None:
            layers['act'] = build_activation_layer(act_cfg)
            if learnable_affine:
                layers['affine'] = LearnableAffine()
        super().__init__(layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h', w')."""
        for layer in self:
            x = within_range(layer(x))
        return x

    def merged(self) -> ConvNormAct:
        """The same without the affine of a ReLU, once the norm is folded into the convolution; else this module."""
        layers = dict(self.named_children())
        if type(layers.get('act')) is not nn.ReLU or 'affine' not in layers or layers['conv'].bias is None:
            return self
        merged = copy.deepcopy(self)
        merged.act = cast(LearnableAffine, merged.affine).move_before_relu(cast(nn.Conv2d, merged.conv))
        del merged.affine
        return merged


class LearnableAffine(nn.Module):
    """One scale and one bias for a whole map, 1 and 0 at first (PP-HGNetV2's learnable affine block)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept; the type of numbers too, under autocast as well."""
        return torch.addcmul(self.bias.to(x.dtype), self.scale.to(x.dtype), x)

    def move_before_relu(self, conv: nn.Conv2d) -> nn.Hardtanh:
        """Move into a convolution with bias that a ReLU and this module follow; what then takes the place of both.

        scale * relu(x) + bias is scale * x + bias, bounded by bias: from below, or from above for a negative scale.
        """
        scale, bias = self.scale.item(), self.bias.item()
        with torch.no_grad():
            conv.weight.mul_(scale)
            cast(Tensor, conv.bias).mul_(scale).add_(bias)
        return nn.Hardtanh(bias, math.inf) if scale >= 0 else nn.Hardtanh(-math.inf, bias)

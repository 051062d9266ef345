"""Convolution, norm, activation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

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
        norm_cfg: dict[str, Any],
        act_cfg: dict[str, Any] | None = None,
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


class LearnableAffine(nn.Module):
    """One scale and one bias for a whole map, 1 and 0 at first (PP-HGNetV2's learnable affine block)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept; the type of numbers too, under autocast as well."""
        return torch.addcmul(self.bias.to(x.dtype), self.scale.to(x.dtype), x)


def input_projections(
    in_channels: Sequence[int], out_channels: int, project: str, norm_cfg: dict[str, Any]
) -> nn.ModuleList:
    """A 1x1 convolution and a norm for each of several maps, which bring them to the same number of channels.

    Args:
        in_channels: of each map.
        project: 'all' maps, or those that have another number of channels ('unequal'); the others stay as they are.
    """
    return nn.ModuleList(
        nn.Identity()
        if project == 'unequal' and channels == out_channels
        else ConvNormAct(channels, out_channels, 1, norm_cfg=norm_cfg)
        for channels in in_channels
    )

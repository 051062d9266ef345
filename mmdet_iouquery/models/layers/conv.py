"""Convolution, norm, activation."""

from __future__ import annotations

from collections import OrderedDict

from mmcv.cnn import build_activation_layer, build_norm_layer
from torch import Tensor, nn

from ...core import within_range


class ConvNormAct(nn.Sequential):
    """A bias-free convolution with 'same' padding, a norm and, unless ``act_cfg`` is None, an activation.

    mmcv's ConvModule would draw the weights from another distribution than the reference trains from; this one leaves
    PyTorch's own, and takes no part in mmengine's ``init_weights``.

    Args:
        groups: of the convolution; as many as channels: a depthwise one.
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
    ) -> None:
        padding = (kernel_size - 1) // 2
        conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, groups=groups, bias=False
        )
        layers = OrderedDict(conv=conv, norm=build_norm_layer(norm_cfg, out_channels)[1])
        if act_cfg is not None:
            layers['act'] = build_activation_layer(act_cfg)
        super().__init__(layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h', w')."""
        for layer in self:
            x = within_range(layer(x))
        return x

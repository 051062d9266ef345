"""Convolution, norm, activation."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from mmcv.cnn import build_activation_layer, build_norm_layer
from torch import Tensor, nn

from ...core import within_range
from .fused_norm import can_fuse, norm_silu
from .winograd_conv import WinogradConv2d


class ConvNormAct(nn.Sequential):
    """A bias-free convolution with 'same' padding, a norm and, unless ``act_cfg`` is None, an activation.

    mmcv's ConvModule would draw the weights from another distribution than the reference trains from; this one leaves
    PyTorch's own, and takes no part in mmengine's ``init_weights``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        norm_cfg: dict,
        act_cfg: dict | None = None,
    ) -> None:
        conv = WinogradConv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=(kernel_size - 1) // 2, bias=False
        )
        parts = OrderedDict(conv=conv, norm=build_norm_layer(norm_cfg, out_channels)[1])
        if act_cfg is not None:
            parts['act'] = build_activation_layer(act_cfg)
        super().__init__(parts)

    def forward(self, x: Tensor) -> Tensor:
        y, norm = self.convolve(x)
        act = self[2] if len(self) == 3 else None
        if type(act) is nn.SiLU and can_fuse(norm, y):
            return norm_silu([y], [norm])
        y = within_range(norm(y))
        return y if act is None else within_range(act(y))

    def convolve(self, x: Tensor) -> tuple[Tensor, nn.BatchNorm2d]:
        """The convolution's output and the norm that comes next, for who goes on from there."""
        conv, norm, *_ = self
        return within_range(conv(x)), cast(nn.BatchNorm2d, norm)

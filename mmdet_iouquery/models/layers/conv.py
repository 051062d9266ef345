"""Convolution, norm, activation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
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

    def forward(self, *maps: Tensor) -> Tensor:
        """A map (B, C, h, w) to (B, D, h', w'); of maps that it :meth:`takes_apart`, all that would be joined."""
        y, norm = self.convolve(*maps)
        act = self[2] if len(self) == 3 else None
        if type(act) is nn.SiLU and can_fuse(norm, y):
            return norm_silu([y], [norm])
        y = within_range(norm(y))
        return y if act is None else within_range(act(y))

    def convolve(self, *maps: Tensor) -> tuple[Tensor, nn.BatchNorm2d]:
        """The convolution's output and the norm that comes next, for who goes on from there."""
        conv, norm, *_ = self
        y = conv(*maps) if len(maps) == 1 else _convolve_apart(cast(nn.Conv2d, conv), maps)
        return within_range(y), cast(nn.BatchNorm2d, norm)

    def takes_apart(self, x: Tensor) -> bool:
        """Whether maps like ``x`` need not be joined along the channels, nor all be of one size, for a 1x1 convolution.

        Each is convolved by its share of the weights, and smaller ones are enlarged thereafter: a smaller map has fewer
        multiplications, and nothing is copied. In training on CPUs; many small operations do not pay elsewhere.
        """
        conv, norm, *_ = self
        return type(conv) is WinogradConv2d and conv.kernel_size == (1, 1) and can_fuse(norm, x)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """A map (B, C, h, w) with the height and width of another, by repeating pixels."""
    size = like.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode='nearest')


def _convolve_apart(conv: nn.Conv2d, maps: Sequence[Tensor]) -> Tensor:
    *others, weight = conv.weight.split([x.shape[1] for x in maps], dim=1)
    y = F.conv2d(maps[-1], weight)
    for x, weight in zip(maps, others):
        y.add_(enlarged(F.conv2d(x, weight), y))
    return y

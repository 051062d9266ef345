"""Blocks that fuse the maps of two neighbouring scales, as in RT-DETR's CCFF (cross-scale feature fusion)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer
from torch import Tensor, nn

from ...core import within_range
from ..layers import ConvNormAct


class RepVGGBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, each with a norm, summed and activated (Ding et al. 2021)."""

    def __init__(self, channels: int, norm_cfg: dict[str, Any], act_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3, norm_cfg=norm_cfg)
        self.conv2 = ConvNormAct(channels, channels, 1, norm_cfg=norm_cfg)
        self.act = build_activation_layer(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D, h, w)."""
        return self.act(within_range(self.conv1(x) + self.conv2(x)))


class _CSP(nn.Module):
    """Two 1x1 convolutions, one followed by RepVGG blocks, summed (figure 4 of RT-DETR, right)."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        num_blocks: int,
        norm_cfg: dict[str, Any],
        act_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, hidden, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv2 = ConvNormAct(in_channels, hidden, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.bottlenecks = nn.Sequential(*[RepVGGBlock(hidden, norm_cfg, act_cfg) for _ in range(num_blocks)])
        self.conv3: nn.Module = nn.Identity()
        if hidden != out_channels:
            self.conv3 = ConvNormAct(hidden, out_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def combine(self, first: Tensor, second: Tensor) -> Tensor:
        """What the first two convolutions gave, (B, hidden, h, w) each, to (B, out_channels, h, w)."""
        return self.conv3(within_range(self.bottlenecks(first) + second))


class CSPBlock(_CSP):
    """The block over one map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, out_channels, h, w)."""
        return self.combine(self.conv1(x), self.conv2(x))


class OneConvCSPBlock(nn.Module):
    """The block over one map whose two 1x1 convolutions are one of both widths (DEIMv2's code, "csp2").

    The first half of its channels is kept, the second is followed by RepVGG blocks; their sum is the result.
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, norm_cfg: dict[str, Any], act_cfg: dict[str, Any]
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, 2 * out_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.bottlenecks = nn.Sequential(*[RepVGGBlock(out_channels, norm_cfg, act_cfg) for _ in range(num_blocks)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, out_channels, h, w)."""
        kept, refined = self.conv1(x).chunk(2, dim=1)
        return within_range(kept + self.bottlenecks(refined))


class Fusion(_CSP):
    """The block over two maps: the fusion block of RT-DETR's CCFF.

    Args:
        in_channels: C of both maps side by side; of their sum where ``join`` is 'sum'.
        out_channels: channels of the result.
        num_blocks: RepVGG blocks.
        expansion: width of the RepVGG blocks, as a fraction of ``out_channels``.
        norm_cfg, act_cfg: of the convolutions.
        join: 'cat' puts the maps side by side, 'sum' adds them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        expansion: float,
        norm_cfg: dict[str, Any],
        act_cfg: dict[str, Any],
        join: str = 'cat',
    ) -> None:
        super().__init__(in_channels, int(out_channels * expansion), out_channels, num_blocks, norm_cfg, act_cfg)
        self.join = join

    def forward(self, other: Tensor, x: Tensor) -> Tensor:
        """A map (B, ., h', w') of a neighbouring scale and this one's (B, ., h, w) to (B, out_channels, h, w)."""
        both = joined(other, x, self.join)
        return self.combine(self.conv1(both), self.conv2(both))


class ELANFusion(nn.Module):
    """The fusion block of D-FINE: a chain of two CSP blocks, each followed by a 3x3 convolution, over two maps.

    The chain starts from one half of a 1x1 convolution; both halves and both results make up the output. Its blocks
    are half as wide as those of a :class:`Fusion` of the same ``expansion``, which has the same arguments.

    Args:
        csp: the CSP blocks have 'two_conv' 1x1 convolutions, or one of both widths ('one_conv', DEIMv2).
        tail: whether 3x3 convolutions follow the CSP blocks (not in DEIMv2 from S on).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        expansion: float,
        norm_cfg: dict[str, Any],
        act_cfg: dict[str, Any],
        join: str = 'cat',
        csp: str = 'two_conv',
        tail: bool = True,
    ) -> None:
        super().__init__()
        self.join = join
        hidden = int(out_channels * expansion) // 2

        def stage(channels: int) -> nn.Sequential:
            block: nn.Module = (
                CSPBlock(channels, hidden, hidden, num_blocks, norm_cfg, act_cfg)
                if csp == 'two_conv'
                else OneConvCSPBlock(channels, hidden, num_blocks, norm_cfg, act_cfg)
            )
            if not tail:
                return nn.Sequential(block)
            return nn.Sequential(block, ConvNormAct(hidden, hidden, 3, norm_cfg=norm_cfg, act_cfg=act_cfg))

        self.conv1 = ConvNormAct(in_channels, 2 * out_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.stages = nn.ModuleList([stage(out_channels), stage(hidden)])
        self.conv2 = ConvNormAct(2 * (out_channels + hidden), out_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def forward(self, other: Tensor, x: Tensor) -> Tensor:
        """A map (B, ., h', w') of a neighbouring scale and this one's (B, ., h, w) to (B, out_channels, h, w)."""
        return self.combine(self.conv1(joined(other, x, self.join)))

    def combine(self, halves: Tensor) -> Tensor:
        """What follows the first convolution (B, 2 * out_channels, h, w)."""
        maps, x = [halves], halves.chunk(2, dim=1)[1]
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.conv2(torch.cat(maps, dim=1))


FUSIONS = ('csp', 'elan')
"""What a config can say: :class:`Fusion`, :class:`ELANFusion`."""
JOINS = ('cat', 'sum')
CSPS = ('two_conv', 'one_conv')


def joined(other: Tensor, x: Tensor, join: str) -> Tensor:
    """Two maps side by side or added up, the first at the height and width of the second by repeating pixels."""
    other = enlarged(other, x)
    return torch.cat([other, x], dim=1) if join == 'cat' else within_range(other + x)


def enlarged(other: Tensor, x: Tensor) -> Tensor:
    """A map at the height and width of another by repeating its pixels."""
    same = other.shape[-2:] == x.shape[-2:]
    return other if same else F.interpolate(other, size=x.shape[-2:], mode='nearest')

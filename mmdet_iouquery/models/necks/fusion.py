"""Blocks that fuse the maps of two neighbouring scales."""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer
from torch import Tensor, nn

from ...core import within_range
from ..layers import ConvNormAct


class RepVGGBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, each with a norm, summed and activated (Ding et al. 2021)."""

    def __init__(self, channels: int, norm_cfg: dict, act_cfg: dict) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3, norm_cfg=norm_cfg)
        self.conv2 = ConvNormAct(channels, channels, 1, norm_cfg=norm_cfg)
        self.act = build_activation_layer(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D, h, w)."""
        return self.act(within_range(self.conv1(x) + self.conv2(x)))

    def merged(self) -> nn.Module:
        """One 3x3 convolution and the activation, which give the same once norms are folded into the convolutions."""
        three, pointwise = (cast(nn.Conv2d, part.conv) for part in (self.conv1, self.conv2))
        if three.bias is None or pointwise.bias is None:
            raise ValueError('fold the norms into the convolutions first')
        conv = copy.deepcopy(three)
        with torch.no_grad():
            conv.weight += F.pad(pointwise.weight, [1, 1, 1, 1])
            cast(Tensor, conv.bias).add_(pointwise.bias)
        return MergedRepVGGBlock(conv, self.act)


class MergedRepVGGBlock(nn.Sequential):
    """What a :class:`RepVGGBlock` becomes for prediction."""

    def forward(self, x: Tensor) -> Tensor:
        conv, act = self
        return act(within_range(conv(x)))


class _CSP(nn.Module):
    """Two 1x1 convolutions, one followed by RepVGG blocks, summed (figure 4 of RT-DETR, right)."""

    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, num_blocks: int, norm_cfg: dict, act_cfg: dict
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

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, norm_cfg: dict, act_cfg: dict) -> None:
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
        norm_cfg: dict,
        act_cfg: dict,
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
        norm_cfg: dict,
        act_cfg: dict,
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


class EnlargingConv(nn.Module):
    """What a 1x1 convolution of two maps side by side, the first of them enlarged, gives with fewer multiplications.

    Each map is convolved by its share of the weights, and the smaller one is enlarged thereafter.

    Args:
        conv: its norm is folded into the convolution; half of its input channels are the first map's.
    """

    def __init__(self, conv: ConvNormAct) -> None:
        super().__init__()
        joint = cast(nn.Conv2d, conv.conv)
        if joint.bias is None:
            raise ValueError('fold the norms into the convolutions first')
        self.other = nn.Conv2d(joint.in_channels // 2, joint.out_channels, 1, bias=False)
        self.own = nn.Conv2d(joint.in_channels // 2, joint.out_channels, 1)
        with torch.no_grad():
            self.other.weight.copy_(joint.weight[:, : self.other.in_channels])
            self.own.weight.copy_(joint.weight[:, self.other.in_channels :])
        self.own.bias = joint.bias
        self.rest = nn.Sequential(*list(conv)[1:])
        self.to(joint.weight).requires_grad_(joint.weight.requires_grad)

    def forward(self, other: Tensor, x: Tensor) -> Tensor:
        """Maps (B, C, h', w') and (B, C, h, w) to (B, D, h, w)."""
        return self.rest(within_range(self.own(x) + enlarged(self.other(other), x)))


class EnlargingFusion(nn.Module):
    """What a fusion of two maps side by side becomes for prediction, where the first is the smaller one.

    Args:
        block: gives its parts away.
    """

    def __init__(self, block: Fusion | ELANFusion) -> None:
        super().__init__()
        names = ['conv1', 'conv2'] if isinstance(block, Fusion) else ['conv1']
        self.convs = nn.ModuleList(EnlargingConv(getattr(block, name)) for name in names)
        for name in names:
            setattr(block, name, nn.Identity())
        self.block = block

    def forward(self, other: Tensor, x: Tensor) -> Tensor:
        """As the block's."""
        return self.block.combine(*(conv(other, x) for conv in self.convs))


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

"""Parts of a detector as prediction computes them, with fewer operations: batch norms are folded before."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import within_range
from ..models.backbones.vit import Block, LayerScale, UnbiasedKeys
from ..models.layers import MLP, ConvNormAct, LearnableAffine, SwiGLU
from ..models.necks import HybridEncoder
from ..models.necks.fusion import ELANFusion, Fusion, RepVGGBlock, enlarged


def merge_parts(module: nn.Module) -> nn.Module:
    """What gives the same as a module with fewer operations; the module itself is changed.

    Parts of a class in :data:`MERGED`, or of a subclass of one, are replaced, inner parts first.
    """
    for name, child in module.named_children():
        setattr(module, name, merge_parts(child))
    for kind, merge in MERGED.items():
        if isinstance(module, kind):
            return merge(module)
    return module


class MergedRepVGGBlock(nn.Sequential):
    """What a :class:`RepVGGBlock` becomes: one 3x3 convolution and the activation."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D, h, w)."""
        conv, act = self
        return act(within_range(conv(x)))


class EnlargingConv(nn.Module):
    """What a 1x1 convolution of two maps side by side, the first of them enlarged, gives with fewer multiplications.

    Each map is convolved by its share of the weights, and the smaller one is enlarged thereafter.

    Args:
        conv: half of its input channels are the first map's.
    """

    def __init__(self, conv: ConvNormAct) -> None:
        super().__init__()
        joint = cast(nn.Conv2d, conv.conv)
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
    """What a fusion of two maps side by side becomes, where the first is the smaller one.

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


def _conv_norm_act(layers: ConvNormAct) -> ConvNormAct:
    """Move the affine behind a ReLU into the convolution, where the norm is folded into it.

    scale * relu(x) + bias is scale * x + bias, bounded by bias: from below, or from above for a negative scale.
    """
    conv, act, affine = cast(nn.Conv2d, layers.conv), getattr(layers, 'act', None), getattr(layers, 'affine', None)
    if type(act) is not nn.ReLU or not isinstance(affine, LearnableAffine) or conv.bias is None:
        return layers
    scale, bias = affine.scale.item(), affine.bias.item()
    with torch.no_grad():
        conv.weight.mul_(scale)
        conv.bias.mul_(scale).add_(bias)
    layers.act = nn.Hardtanh(bias, math.inf) if scale >= 0 else nn.Hardtanh(-math.inf, bias)
    del layers.affine
    return layers


def _repvgg_block(block: RepVGGBlock) -> nn.Module:
    """Both convolutions in one, where each holds its norm."""
    spatial, pointwise = (cast(nn.Conv2d, branch.conv) for branch in (block.conv1, block.conv2))
    if spatial.bias is None or pointwise.bias is None:
        return block
    conv = copy.deepcopy(spatial)
    with torch.no_grad():
        conv.weight += F.pad(pointwise.weight, [1, 1, 1, 1])
        cast(Tensor, conv.bias).add_(pointwise.bias)
    return MergedRepVGGBlock(conv, block.act)


def _hybrid_encoder(neck: HybridEncoder) -> HybridEncoder:
    """Have the top-down blocks convolve either map before they are joined."""
    for i, block in enumerate(neck.fpn_blocks):
        if isinstance(block, (Fusion, ELANFusion)) and block.join == 'cat':
            neck.fpn_blocks[i] = EnlargingFusion(block)
    return neck


def _unbiased_keys(layer: UnbiasedKeys) -> nn.Linear:
    """A plain layer, whose bias is 0 for the keys."""
    linear = nn.Linear(layer.in_features, layer.out_features, device='meta')
    linear.weight, linear.bias = layer.weight, nn.Parameter(layer.used_bias().detach(), requires_grad=False)
    return linear


def _vit_block(block: Block) -> Block:
    """Move the factors of channels into the linear layers before them."""
    last = block.ffn.w3 if isinstance(block.ffn, SwiGLU) else cast(MLP, block.ffn).layers[-1]
    for name, linear in ('scale1', block.attn.proj), ('scale2', cast(nn.Linear, last)):
        factors = getattr(block, name)
        if isinstance(factors, LayerScale):
            with torch.no_grad():
                linear.weight.mul_(factors.gamma[:, None])
                linear.bias.mul_(factors.gamma)
            setattr(block, name, nn.Identity())
    return block


MERGED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    ConvNormAct: _conv_norm_act,
    RepVGGBlock: _repvgg_block,
    HybridEncoder: _hybrid_encoder,
    UnbiasedKeys: _unbiased_keys,
    Block: _vit_block,
}
"""What makes of a part the one for prediction. Norms that are not folded, as group norms, are kept."""

"""A model's training made faster in place, and made as it was again."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..core.graph_capture import is_captured
from ..models.layers import ConvNormAct, LearnableAffine, keep_layout
from ..models.necks.fusion import ELANFusion, Fusion, RepVGGBlock, enlarged
from .convolution import WinogradConv2d, can_filter
from .norms import can_fuse, norm_relu_affine, norm_silu


def accelerate_training(model: nn.Module) -> None:
    """Have a model train faster on a CPU, by modules that compute the same in other ways.

    The class of a module is replaced by a subclass of it; its parameters, buffers, hooks and names stay, so state dict
    and optimizer do too. Subclasses of the classes that are replaced are left alone. Losses and gradients equal those
    of before up to rounding, 3e-6 of the largest number of a map in single precision. In evaluation mode, on other
    devices, and in compiled, exported or traced graphs, the modules are what they were. Hooks of norms and activations
    that are computed together with what follows them are not called in training.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or can_filter(module):
            module.__class__ = _FASTER.get(type(module), type(module))


def restore(model: nn.Module) -> None:
    """Undo :func:`accelerate_training`."""
    for module in model.modules():
        module.__class__ = _PLAIN.get(type(module), type(module))


class FusedConvNormAct(ConvNormAct):
    """The norm and the SiLU, or the ReLU and the affine, in one."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h', w')."""
        conv, norm, *act = self
        kinds = [type(layer) for layer in act]
        if kinds == [nn.SiLU] and can_fuse(norm, x):
            return norm_silu([conv(x)], [norm])
        if kinds == [nn.ReLU, LearnableAffine] and can_fuse(norm, x):
            return norm_relu_affine(conv(x), norm, act[1])
        y = super().forward(x)
        if y.requires_grad and not is_captured():
            keep_layout(y)  # from a view of joined maps, torch's batch norm takes its gradient ten times as slowly
        return y


class FusedRepVGGBlock(RepVGGBlock):
    """Both norms, the sum and the SiLU in one."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D, h, w)."""
        (conv1, norm1), (conv2, norm2) = self.conv1, self.conv2
        if type(self.act) is nn.SiLU and can_fuse(norm1, x) and can_fuse(norm2, x):
            return norm_silu([conv1(x), conv2(x)], [norm1, norm2])
        return super().forward(x)


class SeparateFusion(Fusion):
    """Each map is convolved by its share of the weights, and smaller ones are enlarged thereafter.

    A smaller map has fewer multiplications, and nothing is copied.
    """

    def forward(self, other: Tensor, x: Tensor) -> Tensor:
        """Maps (B, C, h', w') and (B, C, h, w) to (B, out_channels, h, w)."""
        (conv1, norm1, *act1), (conv2, norm2, *act2) = self.conv1, self.conv2
        kinds = [type(layer) for layer in (conv1, conv2, *act1, *act2)]
        plain = self.join == 'cat' and kinds == [nn.Conv2d, nn.Conv2d, nn.SiLU, nn.SiLU]
        if not (plain and can_fuse(norm1, x) and can_fuse(norm2, x)):
            return super().forward(other, x)
        first = norm_silu([_convolve_separately(conv1, other, x)], [norm1])
        second = norm_silu([_convolve_separately(conv2, other, x)], [norm2])
        return self.combine(first, second)


class SeparateELANFusion(ELANFusion):
    """The first convolution as those of :class:`SeparateFusion`."""

    def forward(self, other: Tensor, x: Tensor) -> Tensor:
        """Maps (B, C, h', w') and (B, C, h, w) to (B, out_channels, h, w)."""
        conv, norm, *act = self.conv1
        plain = self.join == 'cat' and [type(layer) for layer in (conv, *act)] == [nn.Conv2d, nn.SiLU]
        if not (plain and can_fuse(norm, x)):
            return super().forward(other, x)
        return self.combine(norm_silu([_convolve_separately(conv, other, x)], [norm]))


def _convolve_separately(conv: Any, other: Tensor, x: Tensor) -> Tensor:
    """A 1x1 convolution of two maps side by side, the first enlarged to the size of the second."""
    of_other, of_x = conv.weight.split([other.shape[1], x.shape[1]], dim=1)
    y, added = F.conv2d(x, of_x), F.conv2d(other, of_other)
    return y.add_(enlarged(added, y))


_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: WinogradConv2d,
    ConvNormAct: FusedConvNormAct,
    RepVGGBlock: FusedRepVGGBlock,
    Fusion: SeparateFusion,
    ELANFusion: SeparateELANFusion,
}
_PLAIN = {faster: plain for plain, faster in _FASTER.items()}

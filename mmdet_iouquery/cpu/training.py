"""A model's training made faster in place, and made as it was again."""

from __future__ import annotations

from torch import nn

from ..models.backbones.vit import UnbiasedKeys
from ..models.layers import MLP, ConvNormAct, DotProductAttention, SwiGLU
from ..models.necks.fusion import RepVGGBlock
from . import norms, products
from .convolution import WinogradConv2d, can_filter

_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    ConvNormAct: norms.FusedConvNormAct,
    RepVGGBlock: norms.FusedRepVGGBlock,
    nn.Linear: products.ProductLinear,
    UnbiasedKeys: products.ProductUnbiasedKeys,
    DotProductAttention: products.ProductAttention,
    MLP: products.LeanMLP,
    SwiGLU: products.LeanSwiGLU,
}


def accelerate_training(model: nn.Module) -> None:
    """Have a model train faster on a CPU, by modules that compute the same in other ways.

    The class of a module is replaced by a subclass; parameters, buffers, hooks and names stay, so state dict and
    optimizer do too. Subclasses of the classes that are replaced are left alone. Losses and gradients are the same up
    to rounding, 3e-6 of a map's largest number in single precision. In evaluation mode (but for
    :class:`.products.ProductAttention`), on other devices, and in compiled, exported or traced graphs, the modules are
    what they were. Hooks of layers that are computed together with others are not called in training.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and (can_filter(module) or products.is_pointwise(module)):
            module.__class__ = WinogradConv2d if can_filter(module) else products.ProductConv2d
        elif type(module) in _FASTER:
            module.__class__ = _FASTER[type(module)]


def restore(model: nn.Module) -> None:
    """Undo :func:`accelerate_training`."""
    for module in model.modules():
        if type(module) in (WinogradConv2d, products.ProductConv2d, *_FASTER.values()):
            module.__class__ = type(module).__mro__[1]

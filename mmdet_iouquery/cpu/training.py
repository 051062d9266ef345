"""A model's training made faster in place, and made as it was again."""

from __future__ import annotations

from torch import nn

from ..models.layers import MLP, ConvNormAct, DotProductAttention, SwiGLU
from ..models.necks.fusion import RepVGGBlock
from .convolution import WinogradConv2d, can_filter
from .norms import FusedConvNormAct, FusedRepVGGBlock
from .products import LeanMLP, LeanSwiGLU, ProductAttention, ProductConv2d, ProductLinear, is_pointwise

_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    ConvNormAct: FusedConvNormAct,
    RepVGGBlock: FusedRepVGGBlock,
    nn.Linear: ProductLinear,
    DotProductAttention: ProductAttention,
    MLP: LeanMLP,
    SwiGLU: LeanSwiGLU,
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
        if type(module) is nn.Conv2d and (can_filter(module) or is_pointwise(module)):
            module.__class__ = WinogradConv2d if can_filter(module) else ProductConv2d
        elif type(module) in _FASTER:
            module.__class__ = _FASTER[type(module)]


def restore(model: nn.Module) -> None:
    """Undo :func:`accelerate_training`."""
    for module in model.modules():
        if type(module) in (WinogradConv2d, ProductConv2d, *_FASTER.values()):
            module.__class__ = type(module).__mro__[1]

"""A model's training made faster in place, and made as it was again."""

from __future__ import annotations

from torch import Tensor, nn

from ..core.graph_capture import is_captured
from ..models.layers import ConvNormAct, DotProductAttention, LearnableAffine, keep_layout
from ..models.necks.fusion import RepVGGBlock
from .convolution import WinogradConv2d, can_filter
from .norms import can_fuse, norm_relu_affine, norm_silu
from .products import ProductAttention, ProductConv2d, ProductLinear, is_pointwise


def accelerate_training(model: nn.Module) -> None:
    """Have a model train faster on a CPU, by modules that compute the same in other ways.

    The class of a module is replaced by a subclass of it; its parameters, buffers, hooks and names stay, so state dict
    and optimizer do too. Subclasses of the classes that are replaced are left alone. Losses and gradients equal those
    of before up to rounding, 3e-6 of the largest number of a map in single precision. In evaluation mode (but for
    :class:`.products.ProductAttention`), on other devices, and in compiled, exported or traced graphs, the modules are
    what they were. Hooks of norms and activations
    that are computed together with what follows them are not called in training.
    """
    for module in model.modules():
        kind = type(module)
        if isinstance(module, nn.Conv2d) and kind is nn.Conv2d:
            module.__class__ = WinogradConv2d if can_filter(module) else ProductConv2d if is_pointwise(module) else kind
        else:
            module.__class__ = _FASTER.get(kind, kind)


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


_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    ConvNormAct: FusedConvNormAct,
    RepVGGBlock: FusedRepVGGBlock,
    nn.Linear: ProductLinear,
    DotProductAttention: ProductAttention,
}
_PLAIN = {
    **{faster: plain for plain, faster in _FASTER.items()},
    WinogradConv2d: nn.Conv2d,
    ProductConv2d: nn.Conv2d,
}

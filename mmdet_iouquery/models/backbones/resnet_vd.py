"""ResNet-vd, the backbone of RT-DETR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock
from mmdet.models.layers import ResLayer
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...errors import InputError
from ..arguments import check_counts, check_sequence
from ..layers import WinogradConv2d, can_fuse, fastest_format, norm_relu_conv, norm_relu_pool


@MODELS.register_module()
class ResNetVd(ResNet):
    """mmdet's ResNet in the "vd" form (He et al. 2019, "Bag of tricks", ResNet-D), as RT-DETR's authors build it.

    Three 3x3 convolutions as stem; average pooling before the shortcut's 1x1 convolution; and a shortcut convolution in
    the first block of *every* stage. mmdet's ResNetV1d has none in the first stage of depths 18 and 34, so the
    authors' pretrained weights do not fit it.

    Args:
        depth: 18, 34, 50, 101 or 152.
        init_cfg: as everywhere in mmdet. None leaves PyTorch's default weights, which the reference starts from.
        kwargs: mmdet's ``ResNet`` arguments (``out_indices``, ``frozen_stages``, ``norm_cfg``, ``norm_eval``, ...);
            ``conv_cfg`` is a ``WinogradConv2d`` if not given.
    """

    def __init__(self, depth: int, *, init_cfg: dict | list | None = None, **kwargs: Any) -> None:
        _check_stages(**kwargs)
        check_counts(depth=depth)
        # an empty list, unlike None, keeps the parent from choosing an initialisation of its own
        init_cfg = [] if init_cfg is None else init_cfg
        conv_cfg = kwargs.pop('conv_cfg', None) or {'type': 'WinogradConv2d'}
        super().__init__(depth, deep_stem=True, avg_down=True, conv_cfg=conv_cfg, init_cfg=init_cfg, **kwargs)
        self.add_module('stem', Stem(*self.stem, self.maxpool))
        self.add_module('maxpool', nn.Identity())  # the stem's last part

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Pictures (B, 3, H, W), in any precision, to the stages' maps, in that of the weights (``model.half()``)."""
        x = x.to(self.stem[0].weight.dtype)
        return super().forward(x.contiguous(memory_format=fastest_format(x)))

    def make_res_layer(self, **kwargs: Any) -> ResLayer:
        """A stage of blocks, the first of which always projects its shortcut, after pooling if it halves the map."""
        if kwargs['block'] is BasicBlock:
            kwargs['block'] = VdBasicBlock
        layer = ResLayer(**kwargs)
        if kwargs['stride'] == 1:  # the parent has no projection here, or one behind a pooling of 1x1
            channels = kwargs['planes'] * kwargs['block'].expansion
            layer[0].downsample = nn.Sequential(
                build_conv_layer(kwargs['conv_cfg'], kwargs['inplanes'], channels, kernel_size=1, bias=False),
                build_norm_layer(kwargs['norm_cfg'], channels)[1],
            )
        return layer


class VdBasicBlock(BasicBlock):
    """mmdet's block; in training, what lies between its convolutions is not kept."""

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp:
            return super().forward(x)
        identity = x if self.downsample is None else self.downsample(x)
        y = self.norm2(_norm_relu_conv(self.conv1(x), self.norm1, self.relu, self.conv2))
        return self.relu(y.add_(identity))


class Stem(nn.Sequential):
    """Three times a convolution, a norm and ReLU; and pooling. In training, what lies between is not kept."""

    def forward(self, x: Tensor) -> Tensor:
        first, *between, norm, relu, pool = self
        x = first(x)
        for triple in (between[:3], between[3:]):
            x = _norm_relu_conv(x, *triple)
        if type(relu) is nn.ReLU and can_fuse(norm, x):
            return norm_relu_pool(x, cast(nn.BatchNorm2d, norm))
        return pool(relu(norm(x)))


def _norm_relu_conv(x: Tensor, norm: nn.Module, relu: nn.Module, conv: nn.Module) -> Tensor:
    plain = type(relu) is nn.ReLU and type(conv) in (nn.Conv2d, WinogradConv2d) and conv.bias is None
    if plain and can_fuse(norm, x):
        return norm_relu_conv(x, cast(nn.BatchNorm2d, norm), cast(nn.Conv2d, conv))
    return conv(relu(norm(x)))


def _check_stages(
    num_stages: int = 4, out_indices: Sequence[int] = (0, 1, 2, 3), frozen_stages: int = -1, **_: Any
) -> None:
    """Where mmdet's ResNet would fail by an assertion, or while it freezes."""
    check_counts(num_stages=num_stages)
    check_counts(least=-1, frozen_stages=frozen_stages)
    check_sequence(least=0, out_indices=out_indices)
    if num_stages > 4 or frozen_stages > num_stages or max(out_indices) >= num_stages:
        raise InputError(
            f'of num_stages={num_stages} (at most 4), frozen_stages={frozen_stages} may be as many, and '
            f'out_indices={tuple(out_indices)} number them from 0'
        )

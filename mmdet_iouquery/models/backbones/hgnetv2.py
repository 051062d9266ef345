"""PP-HGNetv2, the backbone of D-FINE and DEIM.

It has no paper of its own; PaddleClas describes it in ``docs/zh_CN/models/ImageNet1k/PP-HGNetV2.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...argument_checks import check_choice, check_configs, check_counts, check_flags, check_sequence
from ...core import within_range
from ...errors import InputError
from ..layers import ConvNormAct
from .frozen_stages import FrozenStages


class StageSize(NamedTuple):
    """Of a stage and its blocks."""

    mid_channels: int
    """Of the layers in a row."""
    out_channels: int
    num_blocks: int
    num_layers: int
    """In each block."""
    kernel_size: int = 3
    light: bool = False
    """Layers are light convolutions."""


class Size(NamedTuple):
    """Of a backbone."""

    stem_channels: tuple[int, int]
    """Inside and at the end."""
    stages: tuple[StageSize, ...]


def _light(mid_channels: int, out_channels: int, num_blocks: int, num_layers: int, kernel_size: int = 5) -> StageSize:
    return StageSize(mid_channels, out_channels, num_blocks, num_layers, kernel_size, light=True)


_TWO_SMALL_STAGES = StageSize(16, 64, 1, 3), StageSize(32, 256, 1, 3)
SIZES = {
    'Atto': Size((16, 16), (*_TWO_SMALL_STAGES, _light(64, 256, 1, 3, kernel_size=3))),
    'Femto': Size((16, 16), (*_TWO_SMALL_STAGES, _light(64, 512, 1, 3))),
    'Pico': Size((16, 16), (*_TWO_SMALL_STAGES, _light(64, 512, 2, 3))),
    'B0': Size((16, 16), (*_TWO_SMALL_STAGES, _light(64, 512, 2, 3), _light(128, 1024, 1, 3))),
    'B1': Size(
        (24, 32),
        (StageSize(32, 64, 1, 3), StageSize(48, 256, 1, 3), _light(96, 512, 2, 3), _light(192, 1024, 1, 3)),
    ),
    'B2': Size(
        (24, 32),
        (StageSize(32, 96, 1, 4), StageSize(64, 384, 1, 4), _light(128, 768, 3, 4), _light(256, 1536, 1, 4)),
    ),
    'B3': Size(
        (24, 32),
        (StageSize(32, 128, 1, 5), StageSize(64, 512, 1, 5), _light(128, 1024, 3, 5), _light(256, 2048, 1, 5)),
    ),
    'B4': Size(
        (32, 48),
        (StageSize(48, 128, 1, 6), StageSize(96, 512, 1, 6), _light(192, 1024, 3, 6), _light(384, 2048, 1, 6)),
    ),
    'B5': Size(
        (32, 64),
        (StageSize(64, 128, 1, 6), StageSize(128, 512, 2, 6), _light(256, 1024, 5, 6), _light(512, 2048, 2, 6)),
    ),
    'B6': Size(
        (48, 96),
        (StageSize(96, 192, 2, 6), StageSize(192, 512, 3, 6), _light(384, 1024, 6, 6), _light(768, 2048, 3, 6)),
    ),
}
"""B0 to B6 are PaddleClas's; Atto, Femto and Pico are DEIMv2's."""


class Stem(nn.Module):
    """Images to maps of a quarter of their size: convolutions, and beside two of them a pooling."""

    def __init__(self, mid_channels: int, out_channels: int, **conv_cfg: Any) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(3, mid_channels, 3, stride=2, **conv_cfg)
        self.conv2a = ConvNormAct(mid_channels, mid_channels // 2, 2, **conv_cfg)
        self.conv2b = ConvNormAct(mid_channels // 2, mid_channels, 2, **conv_cfg)
        self.pool = nn.MaxPool2d(2, stride=1)
        self.conv3 = ConvNormAct(2 * mid_channels, mid_channels, 3, stride=2, **conv_cfg)
        self.conv4 = ConvNormAct(mid_channels, out_channels, 1, **conv_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D, h, w), a quarter of H and W, rounded up."""
        x = _padded(self.conv1(x))
        branch = self.conv2b(_padded(self.conv2a(x)))
        return self.conv4(self.conv3(torch.cat([self.pool(x), branch], dim=1)))


def _padded(x: Tensor) -> Tensor:
    """A zero more on the right and at the bottom, for kernels of 2x2."""
    return F.pad(x, [0, 1, 0, 1])


class LightConv(nn.Sequential):
    """A pointwise convolution without activation, then a depthwise one."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **conv_cfg: Any) -> None:
        super().__init__(
            ConvNormAct(in_channels, out_channels, 1, norm_cfg=conv_cfg['norm_cfg']),
            ConvNormAct(out_channels, out_channels, kernel_size, groups=out_channels, **conv_cfg),
        )


class Block(nn.Module):
    """Convolutions in a row (HG block): its input and all their outputs, side by side, are aggregated by two 1x1."""

    def __init__(self, in_channels: int, size: StageSize, residual: bool, **conv_cfg: Any) -> None:
        super().__init__()
        conv = LightConv if size.light else ConvNormAct
        widths = [in_channels, *[size.mid_channels] * size.num_layers]
        self.layers = nn.ModuleList(
            conv(before, after, size.kernel_size, **conv_cfg) for before, after in zip(widths, widths[1:])
        )
        self.aggregation = nn.Sequential(
            ConvNormAct(sum(widths), size.out_channels // 2, 1, **conv_cfg),
            ConvNormAct(size.out_channels // 2, size.out_channels, 1, **conv_cfg),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w)."""
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        y = self.aggregation(torch.cat(maps, dim=1))
        return within_range(y + x) if self.residual else y


class Stage(nn.Module):
    """A depthwise convolution that halves the map, but in the first stage, then blocks, all but the first residual."""

    def __init__(self, in_channels: int, size: StageSize, downsample: bool, **conv_cfg: Any) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if downsample:
            norm_cfg = conv_cfg['norm_cfg']
            self.downsample = ConvNormAct(in_channels, in_channels, 3, stride=2, groups=in_channels, norm_cfg=norm_cfg)
        self.blocks = nn.Sequential(
            Block(in_channels, size, residual=False, **conv_cfg),
            *(Block(size.out_channels, size, residual=True, **conv_cfg) for _ in range(size.num_blocks - 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h', w'), half of h and w, rounded up, or with the first stage all of them."""
        return self.blocks(self.downsample(x))


@MODELS.register_module()
class HGNetv2(FrozenStages):
    """Maps of strides 4, 8, 16 and 32, of images of any size.

    As in mmdet's ``ResNet``, all stages are built, so that published weights fit; those behind the last of
    ``out_indices`` are neither run nor trained.

    Args:
        arch: one of :data:`SIZES`. Atto, Femto and Pico have three stages, the others four.
        learnable_affine: a scale and a bias after each ReLU. D-FINE and DEIM have them in B0 and B2, and published
            weights of B0 to B3 expect them.
        out_indices: stages whose maps are given, numbered from 0, ascending; None: all.
        frozen_stages: the stem and as many stages do not learn, and keep their norms' statistics; -1: none.
        norm_cfg: of the convolutions; None: ``dict(type='BN')``.
        norm_eval: norms keep their running statistics.
        init_cfg: as everywhere in mmdet. None leaves PyTorch's default weights.

    Raises:
        InputError: an unknown ``arch``, or a stage that it does not have.
    """

    def __init__(
        self,
        arch: str,
        *,
        learnable_affine: bool = False,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_choice([*SIZES], arch=arch)
        check_flags(learnable_affine=learnable_affine, norm_eval=norm_eval)
        check_configs(norm_cfg=norm_cfg)
        size = SIZES[arch]
        out_indices = range(len(size.stages)) if out_indices is None else out_indices
        _check_stages(arch, len(size.stages), out_indices, frozen_stages)
        self.out_indices, self.frozen_stages, self.norm_eval = tuple(out_indices), frozen_stages, norm_eval
        conv_cfg: dict[str, Any] = {
            'norm_cfg': norm_cfg or {'type': 'BN'},
            'act_cfg': {'type': 'ReLU', 'inplace': True},
            'learnable_affine': learnable_affine,
        }
        self.stem = Stem(*size.stem_channels, **conv_cfg)
        widths = [size.stem_channels[1], *(stage.out_channels for stage in size.stages)]
        self.stages = nn.ModuleList(
            Stage(in_channels, stage, downsample=i > 0, **conv_cfg)
            for i, (in_channels, stage) in enumerate(zip(widths, size.stages))
        )
        for module in [*self._frozen(), *self.stages[max(self.out_indices) + 1 :]]:
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W), in any precision, to the stages' maps, in that of the weights (``model.half()``).

        Maps lie channels last in memory, as convolutions hand on the layout of what they are given.
        """
        dtype = cast(Tensor, self.stem.conv1[0].weight).dtype
        x = self.stem(x.to(dtype).contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in self.stages[: max(self.out_indices) + 1]:
            x = stage(x)
            maps.append(x)
        return tuple(maps[i] for i in self.out_indices)

    def _frozen(self) -> list[nn.Module]:
        return [self.stem, *self.stages[: self.frozen_stages]] if self.frozen_stages >= 0 else []


def _check_stages(arch: str, num_stages: int, out_indices: Sequence[int], frozen_stages: int) -> None:
    check_counts(least=-1, frozen_stages=frozen_stages)
    check_sequence(least=0, out_indices=out_indices)
    ascending = list(out_indices) == sorted(set(out_indices))
    if frozen_stages > num_stages or max(out_indices) >= num_stages or not ascending:
        raise InputError(
            f'HGNetv2 {arch} has {num_stages} stages: frozen_stages must be at most {num_stages}, got {frozen_stages}, '
            f'and out_indices ascend from 0 to at most {num_stages - 1}, got {tuple(out_indices)}'
        )

"""A plain Vision Transformer as a backbone of several scales: DEIMv2's, with a spatial prior, and ECDet's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...argument_checks import check_choice, check_configs, check_counts, check_sequence
from ...core import within_range
from ...errors import InputError
from ..layers import ConvNormAct
from .frozen_stages import FrozenStages
from .vit import VisionTransformer

STRIDES = (4, 8, 16, 32)


class SpatialPrior(nn.Module):
    """Maps of fine detail from a few convolutions of stride 2, beside a ViT (DEIMv2's spatial tuning adapter).

    Args:
        channels: c of the first convolution; maps of strides 4, 8, 16 and 32 have c, 2c, 4c and 4c.
        strides: of the maps that are given.
    """

    def __init__(self, channels: int, strides: Sequence[int], norm_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        widths = [3, channels, 2 * channels, 4 * channels, 4 * channels]
        num_convs = 1 + STRIDES.index(self.strides[-1])
        self.convs = nn.ModuleList(
            ConvNormAct(a, b, 3, stride=2, norm_cfg=norm_cfg) for a, b in zip(widths[:num_convs], widths[1:])
        )
        self.act = nn.GELU()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = [widths[1 + STRIDES.index(stride)] for stride in self.strides]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to a map for each stride, H and W over it, rounded up."""
        x = self.pool(self.act(self.convs[0](x)))
        maps = {STRIDES[0]: x}
        for i, (stride, conv) in enumerate(zip(STRIDES[1:], self.convs[1:])):
            x = conv(self.act(x) if i else x)
            maps[stride] = x
        return [maps[stride] for stride in self.strides]


@MODELS.register_module()
class ViTAdapter(FrozenStages):
    """Maps of several strides from the tokens of a plain ViT, of images of any size.

    Tokens after chosen blocks are enlarged or reduced to each stride, put beside a map of the spatial prior where there
    is one, and projected. Maps have the image's height and width over the stride, rounded up.

    Args:
        arch: one of :data:`~mmdet_iouquery.models.backbones.vit.SIZES`.
        size_cfg: numbers of ``arch`` that shall be others.
        strides: of the maps: some of 4, 8, 16 and 32, ascending.
        out_indices: blocks that tokens are taken after: with ``tokens='each'`` one for each stride.
        tokens: 'each': a stride has the tokens of its own block (DEIMv2); 'mean': all have the mean of all blocks'
            tokens (ECDet).
        prior_channels: of the spatial prior's first convolution (DEIMv2: 16, 16, 32 and 64 in S, M, L and X); None: no
            spatial prior (ECDet).
        out_channels: D of the maps; None: that of the ViT.
        project: 'all': each map passes a 1x1 convolution with norm; 'coarsest': the coarsest alone (ECDet-S and M).
        frozen_stages: of the ViT: its patch embedding and as many blocks do not learn; -1: none.
        norm_cfg: of all convolutions; None: ``dict(type='BN')``.
        norm_eval, with_cp: as in :class:`VisionTransformer`.
        init_cfg: as everywhere in mmdet; of a file of the bare ViT with ``part='vit'``, see
            :class:`~mmdet_iouquery.checkpoints.initializer.ConvertedPretrained`.

    Raises:
        InputError: numbers or choices that do not fit each other.
    """

    def __init__(
        self,
        arch: str,
        *,
        size_cfg: dict[str, Any] | None = None,
        strides: Sequence[int] = (8, 16, 32),
        out_indices: Sequence[int] = (3, 7, 11),
        tokens: str = 'each',
        prior_channels: int | None = None,
        out_channels: int | None = None,
        project: str = 'all',
        frozen_stages: int = -1,
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_choice(('each', 'mean'), tokens=tokens)
        check_choice(('all', 'coarsest'), project=project)
        check_configs(norm_cfg=norm_cfg)
        self.vit = VisionTransformer(
            arch,
            size_cfg=size_cfg,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_cfg=norm_cfg,
            norm_eval=norm_eval,
            with_cp=with_cp,
        )
        dims = self.vit.size.embed_dims
        out_channels = dims if out_channels is None else out_channels
        check_counts(out_channels=out_channels, prior_channels=1 if prior_channels is None else prior_channels)
        _check_strides(strides, out_indices, tokens)
        if project == 'coarsest' and (prior_channels is not None or out_channels != dims):
            raise InputError(
                f"project='coarsest' leaves finer maps as the ViT's tokens are, of {dims} channels: there can be no "
                f"prior_channels and no other out_channels ({out_channels}); set project='all', or leave them out"
            )
        norm_cfg = norm_cfg or {'type': 'BN'}
        self.strides, self.tokens, self.out_channels, self.norm_eval = tuple(strides), tokens, out_channels, norm_eval
        self.prior = None if prior_channels is None else SpatialPrior(prior_channels, strides, norm_cfg)
        beside = [0] * len(strides) if self.prior is None else self.prior.channels
        self.projections = nn.ModuleList(
            ConvNormAct(dims + channels, out_channels, 1, norm_cfg=norm_cfg)
            for channels in (beside if project == 'all' else beside[-1:])
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W), in any precision, to maps (B, D, h, w), finest first, in that of the weights."""
        x = x.to(self.vit.dtype).contiguous(memory_format=torch.channels_last)
        blocks = self.vit(x)
        if self.tokens == 'mean':
            mean = sum((block / len(blocks) for block in blocks[1:]), blocks[0] / len(blocks))
            blocks = (mean,) * len(self.strides)
        if self.prior is None:
            sizes = [[(side + stride - 1) // stride for side in x.shape[-2:]] for stride in self.strides]
            maps = [_resized(block, size) for block, size in zip(blocks, sizes)]
        else:
            prior = self.prior(x)
            maps = [torch.cat([_resized(block, fine.shape[-2:]), fine], 1) for fine, block in zip(prior, blocks)]
        first = len(maps) - len(self.projections)
        return (*maps[:first], *(project(x) for project, x in zip(self.projections, maps[first:])))


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """A map (B, D, h, w) at another height and width, by linear interpolation between pixels' centres."""
    same = tuple(x.shape[-2:]) == tuple(size)
    return x if same else within_range(F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=False))


def _check_strides(strides: Sequence[int], out_indices: Sequence[int], tokens: str) -> None:
    check_sequence(strides=strides)
    if list(strides) != sorted(set(strides) & set(STRIDES)):
        raise InputError(f'strides must be some of {list(STRIDES)}, each once and ascending, got {tuple(strides)}')
    if tokens == 'each' and len(out_indices) != len(strides):
        raise InputError(
            f"tokens='each' takes a block's tokens for each of {len(strides)} strides, and out_indices names "
            f"{len(out_indices)}; name as many, or set tokens='mean'"
        )

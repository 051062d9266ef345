"""The neck of DEIMv2's smallest detectors, which makes two maps of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...argument_checks import check_configs, check_counts, check_numbers, check_sequence
from ...core import within_range
from ...errors import InputError
from ..layers import ConvNormAct
from .fusion import ELANFusion


class GlobalContext(nn.Module):
    """Adds its own average over all pixels to a map, then a 1x1 convolution (DEIMv2's code, "GAP fusion")."""

    def __init__(self, channels: int, norm_cfg: dict[str, Any], act_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.conv = ConvNormAct(channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D, h, w)."""
        return self.conv(within_range(x + x.mean((2, 3), keepdim=True)))


@MODELS.register_module()
class LiteEncoder(BaseModule):
    """A coarser map made of the backbone's one by average pooling, then fusion top-down and bottom-up between the two.

    In place of attention, the coarser map is given its average over all pixels. Maps are summed where a fusion joins
    them. Any detector of mmdet that takes two maps can have it as its neck.

    Args:
        in_channels: channels of the backbone's map, a list of one number.
        out_channels: channels D of both output maps.
        expansion: width of the fusion blocks, as a fraction of ``out_channels`` (0.34 in Atto, Femto and Pico).
        num_fusion_blocks: RepVGG blocks in each half of a fusion (2 there).
        norm_cfg, act_cfg: of the convolutions; None: batch norm and SiLU.

    Raises:
        InputError: a number that cannot be, or more than one map.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (512,),
        out_channels: int = 256,
        *,
        expansion: float = 1.0,
        num_fusion_blocks: int = 3,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_sequence(in_channels=in_channels)
        check_counts(out_channels=out_channels, num_fusion_blocks=num_fusion_blocks)
        check_numbers(least=2 / out_channels, expansion=expansion)
        check_configs(norm_cfg=norm_cfg, act_cfg=act_cfg)
        if len(in_channels) != 1:
            raise InputError(
                f'LiteEncoder makes two maps of one, and in_channels={[*in_channels]} are those of {len(in_channels)}; '
                'give the backbone one of out_indices, or name HybridEncoder as the neck'
            )
        norm_cfg, act_cfg = norm_cfg or {'type': 'BN'}, act_cfg or {'type': 'SiLU', 'inplace': True}
        self.in_channels, self.out_channels = tuple(in_channels), out_channels

        def down() -> nn.Module:
            conv = ConvNormAct(out_channels, out_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
            return nn.Sequential(nn.AvgPool2d(3, stride=2, padding=1), conv)

        def fuse() -> nn.Module:
            blocks = out_channels, out_channels, num_fusion_blocks, expansion, norm_cfg, act_cfg
            return ELANFusion(*blocks, join='sum', csp='one_conv')

        self.input_proj = nn.ModuleList([ConvNormAct(in_channels[0], out_channels, 1, norm_cfg=norm_cfg)])
        self.coarser = down()
        self.context = GlobalContext(out_channels, norm_cfg, act_cfg)
        self.fpn_block = fuse()
        self.downsample = down()
        self.pan_block = fuse()

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """One map (B, in_channels[0], h, w) to two: (B, D, h, w), and (B, D, h', w') of half the size, rounded up.

        Raises:
            ValueError: number or channels of the maps differ from ``in_channels``.
        """
        channels = tuple(x.shape[1] for x in inputs)
        if channels != self.in_channels:
            raise ValueError(
                f'LiteEncoder was built for one map of {self.in_channels[0]} channels and was given maps of {channels} '
                'channels; set in_channels to those of the backbone'
            )
        x = self.input_proj[0](within_range(inputs[0]))
        coarse = self.context(self.coarser(x))
        fine = self.fpn_block(coarse, x)
        return fine, self.pan_block(self.downsample(fine), coarse)

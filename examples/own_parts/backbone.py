"""A small backbone of depthwise separable convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class SmallMobileNet(BaseModule):
    """MobileNet's layers (Howard et al. 2017, section 3.1) in four stages after a stem, each half as wide and high.

    A neck's ``in_channels`` are those of the last three stages.

    Args:
        channels: of the stages, at strides 4, 8, 16 and 32.
        blocks: of the stages.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512),
        blocks: Sequence[int] = (1, 2, 4, 2),
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        norm_cfg = norm_cfg or dict(type='BN')  # not norm_cfg.pop or .setdefault: the config is the user's
        self.stem = ConvModule(3, channels[0] // 2, 3, stride=2, padding=1, norm_cfg=norm_cfg)
        self.stages = nn.ModuleList()
        width = channels[0] // 2
        for channel, number in zip(channels, blocks):
            layers = [
                DepthwiseSeparableConvModule(
                    width if i == 0 else channel, channel, 3, stride=2 if i == 0 else 1, padding=1, norm_cfg=norm_cfg
                )
                for i in range(number)
            ]
            self.stages.append(nn.Sequential(*layers))
            width = channel

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to maps at strides 8, 16 and 32, the finest first."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[1:])

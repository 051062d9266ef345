"""ResNet-vd, the backbone of RT-DETR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_conv_layer, build_norm_layer
from mmdet.models.backbones import ResNet
from mmdet.models.layers import ResLayer
from mmdet.registry import MODELS
from torch import Tensor, channels_last, nn

from ...argument_checks import check_choice, check_counts, check_sequence
from ...errors import InputError


@MODELS.register_module()
class ResNetVd(ResNet):
    """mmdet's ResNet in the "vd" form (He et al. 2019, "Bag of tricks", ResNet-D), as RT-DETR's authors build it.

    Three 3x3 convolutions as stem; average pooling before the shortcut's 1x1 convolution; and a shortcut convolution in
    the first block of *every* stage. mmdet's ResNetV1d has none in the first stage of depths 18 and 34, so the
    authors' pretrained weights do not fit it.

    Args:
        depth: 18, 34, 50, 101 or 152.
        init_cfg: as everywhere in mmdet. None leaves PyTorch's default weights, which the reference starts from.
        kwargs: mmdet's ``ResNet`` arguments (``out_indices``, ``frozen_stages``, ``norm_cfg``, ``norm_eval``, ...).
    """

    def __init__(
        self, depth: int, *, init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> None:
        _check_stages(**kwargs)
        check_choice([*self.arch_settings], depth=depth)
        # an empty list, unlike None, keeps the parent from choosing an initialisation of its own
        init_cfg = [] if init_cfg is None else init_cfg
        super().__init__(depth, deep_stem=True, avg_down=True, init_cfg=init_cfg, **kwargs)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W), in any precision, to the stages' maps, in that of the weights (``model.half()``).

        Maps lie channels last in memory, as convolutions hand on the layout of what they are given.
        """
        return super().forward(x.to(self.stem[0].weight.dtype).contiguous(memory_format=channels_last))

    def make_res_layer(self, **kwargs: Any) -> ResLayer:
        """A stage of blocks, the first of which always projects its shortcut, after pooling if it halves the map."""
        layer = ResLayer(**kwargs)
        if kwargs['stride'] == 1:  # the parent has no projection here, or one behind a pooling of 1x1
            channels = kwargs['planes'] * kwargs['block'].expansion
            layer[0].downsample = nn.Sequential(
                build_conv_layer(kwargs['conv_cfg'], kwargs['inplanes'], channels, kernel_size=1, bias=False),
                build_norm_layer(kwargs['norm_cfg'], channels)[1],
            )
        return layer


def _check_stages(
    num_stages: int = 4, out_indices: Sequence[int] = (0, 1, 2, 3), frozen_stages: int = -1, **_: Any
) -> None:
    """Where mmdet's ResNet would fail by an assertion, or while it freezes."""
    check_counts(num_stages=num_stages)
    check_counts(least=-1, frozen_stages=frozen_stages)
    check_sequence(least=0, out_indices=out_indices)
    if num_stages > 4 or frozen_stages > num_stages or max(out_indices) >= num_stages:
        raise InputError(
            'num_stages must be at most 4, frozen_stages at most num_stages, and out_indices below num_stages, got '
            f'{num_stages}, {frozen_stages} and {tuple(out_indices)}'
        )

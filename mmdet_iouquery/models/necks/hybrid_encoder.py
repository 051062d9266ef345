"""The efficient hybrid encoder of RT-DETR (Zhao et al. 2024, section 4.2, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...argument_checks import (
    check_choice,
    check_configs,
    check_counts,
    check_flags,
    check_heads,
    check_numbers,
    check_sequence,
)
from ...core import within_range
from ...errors import InputError
from ..layers import ConvNormAct, input_projections
from .aifi import AIFI
from .fusion import CSPS, FUSIONS, JOINS, ELANFusion, Fusion


@MODELS.register_module()
class HybridEncoder(BaseModule):
    """AIFI on the coarsest map, then CCFF: fusion top-down and bottom-up between neighbouring scales.

    Gives one map a level, strides unchanged, and further, coarser ones on demand, so it can stand where mmdet's FPN or
    PAFPN does: ``in_channels``, ``out_channels``, ``start_level`` and ``num_outs`` mean what they mean there. A further
    map is a 3x3 convolution of stride 2, with norm and activation, on the map before it; RT-DETR has none.

    Args:
        in_channels: channels of each of the backbone's maps, finest first.
        out_channels: channels D of every output map.
        start_level: the first of the backbone's maps that is used; finer ones are ignored.
        num_outs: output maps, at least as many as the maps used; None: as many.
        num_heads, feedforward_channels, num_encoder_layers, dropout: of AIFI; no layers: no AIFI.
        encoder_levels: levels that AIFI runs on, of those used; negative ones counted from the coarsest.
        expansion: width of the fusion blocks, as a fraction of ``out_channels`` (0.5 in R18, R34 and R50-m).
        num_fusion_blocks: RepVGG blocks in each fusion, or in each half of an 'elan' fusion.
        fusion: 'csp', RT-DETR's block, or 'elan', D-FINE's.
        csp: the CSP blocks inside an 'elan' fusion have 'two_conv' 1x1 convolutions, or one of both widths ('one_conv',
            DEIMv2's).
        elan_tail: whether a 3x3 convolution follows each of them (not in DEIMv2 from S on).
        join: what a fusion is given: both maps side by side ('cat'), or their sum ('sum', DEIMv2's).
        downsample: on the way down to coarser scales a 3x3 convolution of stride 2 with norm and activation ('conv'),
            or a 1x1 and a depthwise 3x3 convolution with a norm each ('separable', D-FINE's).
        lateral_act: whether the 1x1 convolutions on the way up to finer scales have an activation (not in D-FINE).
        project: which maps a 1x1 convolution and a norm bring to ``out_channels``: 'all', or those that have another
            number of channels ('unequal', DEIMv2's).
        temperature: of AIFI's position code.
        position_order: 'column_major' enumerates AIFI's position code as the authors' code does, which their weights
            expect; 'row_major' as the tokens run, which Hugging Face's port does. The same for square inputs; see
            :func:`~mmdet_iouquery.core.sine_position_encoding_2d`.
        norm_cfg, act_cfg: of the convolutions.
        encoder_act_cfg: activation of AIFI's feed-forward network, GELU by default.

    Raises:
        ValueError: an unknown name of a choice, an ``encoder_levels`` entry without a map, a ``start_level`` that
            is none of the backbone's maps, fewer than two maps, or fewer ``num_outs`` than maps used.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (512, 1024, 2048),
        out_channels: int = 256,
        *,
        start_level: int = 0,
        num_outs: int | None = None,
        num_heads: int = 8,
        feedforward_channels: int = 1024,
        num_encoder_layers: int = 1,
        dropout: float = 0.0,
        encoder_levels: Sequence[int] = (-1,),
        expansion: float = 1.0,
        num_fusion_blocks: int = 3,
        fusion: str = 'csp',
        csp: Literal['two_conv', 'one_conv'] = 'two_conv',
        elan_tail: bool = True,
        join: str = 'cat',
        downsample: str = 'conv',
        lateral_act: bool = True,
        project: Literal['all', 'unequal'] = 'all',
        temperature: float = 10000.0,
        position_order: str = 'column_major',
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        encoder_act_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_configs(norm_cfg=norm_cfg, act_cfg=act_cfg, encoder_act_cfg=encoder_act_cfg)
        _check_levels(in_channels, start_level, num_outs, encoder_levels)
        check_heads(num_heads, out_channels=out_channels)
        _check_aifi(feedforward_channels, num_encoder_layers, dropout, temperature, position_order)
        check_choice(('all', 'unequal'), project=project)
        check_choice(('conv', 'separable'), downsample=downsample)
        check_flags(lateral_act=lateral_act)
        _check_fusion(out_channels, num_fusion_blocks, expansion, join, fusion, csp, elan_tail)
        norm_cfg, act_cfg = norm_cfg or {'type': 'BN'}, act_cfg or {'type': 'SiLU', 'inplace': True}
        levels = len(in_channels) - start_level
        self.in_channels, self.out_channels = tuple(in_channels), out_channels
        self.start_level, self.num_outs = start_level, levels if num_outs is None else num_outs
        self.encoder_levels = tuple(level % levels for level in encoder_levels) if num_encoder_layers else ()

        self.input_proj = input_projections(self.in_channels[start_level:], out_channels, project, norm_cfg)
        layers = out_channels, num_heads, feedforward_channels, num_encoder_layers, dropout
        aifi = partial(AIFI, *layers, temperature, position_order, encoder_act_cfg or {'type': 'GELU'})
        self.encoder = nn.ModuleList(aifi() for _ in self.encoder_levels)

        # CCFF, top-down: from the coarsest level on; bottom-up: from the finest
        conv = partial(ConvNormAct, out_channels, out_channels, norm_cfg=norm_cfg)
        joined_channels = 2 * out_channels if join == 'cat' else out_channels
        blocks = joined_channels, out_channels, num_fusion_blocks, expansion, norm_cfg, act_cfg, join
        elan, steps = fusion == 'elan', range(levels - 1)
        fuse = partial(ELANFusion, *blocks, csp, elan_tail) if elan else partial(Fusion, *blocks)
        self.lateral_convs = nn.ModuleList(conv(1, act_cfg=act_cfg if lateral_act else None) for _ in steps)
        self.fpn_blocks = nn.ModuleList(fuse() for _ in steps)
        self.downsample_convs = nn.ModuleList(_downsampling(downsample, out_channels, norm_cfg, act_cfg) for _ in steps)
        self.pan_blocks = nn.ModuleList(fuse() for _ in steps)
        self.extra_convs = nn.ModuleList(conv(3, stride=2, act_cfg=act_cfg) for _ in range(self.num_outs - levels))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, in_channels[i], h, w), finest first, to ``num_outs`` maps (B, out_channels, h, w).

        The sizes are those of the maps used; each further map has half the size of the one before, rounded up.

        Raises:
            ValueError: number or channels of the maps differ from ``in_channels``.
        """
        channels = tuple(x.shape[1] for x in inputs)
        if channels != self.in_channels:
            raise ValueError(
                f'HybridEncoder was built for maps of {self.in_channels} channels and was given {channels}; set '
                'in_channels to those of the backbone'
            )
        maps = [proj(within_range(x)) for proj, x in zip(self.input_proj, inputs[self.start_level :])]
        for level, encoder in zip(self.encoder_levels, self.encoder):
            maps[level] = encoder(maps[level])
        outputs = self._bottom_up(self._top_down(maps))
        for conv in self.extra_convs:
            outputs.append(conv(outputs[-1]))
        return tuple(outputs)

    def _top_down(self, maps: list[Tensor]) -> list[Tensor]:
        outputs = [maps[-1]]
        for lateral, block, finer in zip(self.lateral_convs, self.fpn_blocks, reversed(maps[:-1])):
            outputs[-1] = lateral(outputs[-1])
            outputs.append(block(outputs[-1], finer))
        return outputs[::-1]

    def _bottom_up(self, maps: list[Tensor]) -> list[Tensor]:
        outputs = [maps[0]]
        for downsample, block, coarser in zip(self.downsample_convs, self.pan_blocks, maps[1:]):
            outputs.append(block(downsample(outputs[-1]), coarser))
        return outputs


def _downsampling(kind: str, channels: int, norm_cfg: dict[str, Any], act_cfg: dict[str, Any]) -> nn.Module:
    conv = partial(ConvNormAct, channels, channels, norm_cfg=norm_cfg)
    if kind == 'conv':
        return conv(3, stride=2, act_cfg=act_cfg)
    return nn.Sequential(conv(1), conv(3, stride=2, groups=channels))


def _check_levels(
    in_channels: Sequence[int], start_level: int, num_outs: int | None, encoder_levels: Sequence[int]
) -> None:
    check_sequence(in_channels=in_channels)
    num_inputs = len(in_channels)
    check_counts(least=None, start_level=start_level, num_outs=0 if num_outs is None else num_outs)
    if not isinstance(encoder_levels, Sequence) or len(encoder_levels):  # an empty list is one too
        check_sequence(least=None, encoder_levels=encoder_levels)
    if not 0 <= start_level < num_inputs:
        raise ValueError(f'start_level must be one of the {num_inputs} maps of in_channels, got {start_level}')
    levels = num_inputs - start_level
    if levels < 2:
        raise ValueError(
            'a hybrid encoder fuses maps of several scales and was given one '
            f'({num_inputs} in in_channels, start_level {start_level}); give the backbone more out_indices, or leave '
            'it out: a DETR on one map has an encoder of its own'
        )
    if num_outs is not None and num_outs < levels:
        raise ValueError(f'num_outs must be at least the number of maps used, {levels}, got {num_outs}')
    if any(not -levels <= level < levels for level in encoder_levels):
        raise ValueError(
            f'encoder_levels {tuple(encoder_levels)} names a level that {levels} maps do not have; number them from 0'
        )


def _check_aifi(
    feedforward_channels: int, num_encoder_layers: int, dropout: float, temperature: float, position_order: str
) -> None:
    check_counts(feedforward_channels=feedforward_channels)
    check_counts(least=0, num_encoder_layers=num_encoder_layers)
    check_numbers(most=1.0, dropout=dropout)
    check_numbers(least=1.0, temperature=temperature)
    check_choice(('column_major', 'row_major'), position_order=position_order)


def _check_fusion(
    out_channels: int, num_fusion_blocks: int, expansion: float, join: str, fusion: str, csp: str, elan_tail: bool
) -> None:
    check_counts(num_fusion_blocks=num_fusion_blocks)
    check_choice(JOINS, join=join)
    check_choice(FUSIONS, fusion=fusion)
    check_choice(CSPS, csp=csp)
    check_flags(elan_tail=elan_tail)
    if fusion != 'elan' and (csp, elan_tail) != ('two_conv', True):
        raise InputError(
            f"csp={csp!r} and elan_tail={elan_tail} are choices of fusion='elan', and fusion is {fusion!r}: set "
            "fusion='elan', or leave them out"
        )
    check_numbers(least=(2 if fusion == 'elan' else 1) / out_channels, expansion=expansion)

"""The efficient hybrid encoder of RT-DETR (Zhao et al. 2024, section 4.2, figure 4)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...argument_checks import check_configs, check_counts, check_heads, check_numbers, check_sequence
from ...core import TableCache, sine_position_encoding_2d, within_range
from ..layers import ConvNormAct, SelfAttention, as_tokens, layout_of


class AIFI(nn.Module):
    """Attention-based intra-scale feature interaction: post-norm Transformer layers over one map."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        num_layers: int,
        dropout: float,
        temperature: float,
        position_order: str,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.column_major = position_order == 'column_major'
        self._tables = TableCache()
        self.layers = nn.ModuleList(
            AIFILayer(embed_dims, num_heads, feedforward_channels, dropout) for _ in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D, h, w)."""
        height, width = x.shape[-2:]

        def make_position() -> Tensor:
            return sine_position_encoding_2d(
                height,
                width,
                x.shape[1],
                temperature=self.temperature,
                column_major=self.column_major,
                device=x.device,
            ).to(x.dtype)

        position = self._tables((height, width, x.device, x.dtype), make_position)
        tokens = as_tokens(x)
        for layer in self.layers:
            tokens = layer(tokens, position)
        # torch 2.13 cannot compile a convolution of this view, of several images of any size (pytorch #188323)
        layout = torch.contiguous_format if torch.compiler.is_compiling() else layout_of(x)
        return tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous(memory_format=layout)


class AIFILayer(nn.Module):
    """Self-attention and feed-forward network, each followed by a layer norm; the position is added to q and k."""

    def __init__(self, embed_dims: int, num_heads: int, feedforward_channels: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = SelfAttention(embed_dims, num_heads, dropout)
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        """(B, N, D) and (N, D) to (B, N, D)."""
        attended = self.self_attn(tokens, position)
        tokens = self.norm1(within_range(tokens + self.dropout(attended)))
        hidden = self.dropout(F.gelu(within_range(self.linear1(tokens))))
        return self.norm2(within_range(tokens + self.dropout(within_range(self.linear2(hidden)))))


class RepVGGBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, each with a norm, summed and activated (Ding et al. 2021)."""

    def __init__(self, channels: int, norm_cfg: dict, act_cfg: dict) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3, norm_cfg=norm_cfg)
        self.conv2 = ConvNormAct(channels, channels, 1, norm_cfg=norm_cfg)
        self.act = build_activation_layer(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to (B, D, h, w)."""
        return self.act(within_range(self.conv1(x) + self.conv2(x)))

    def merged(self) -> nn.Module:
        """One 3x3 convolution and the activation, which give the same once norms are folded into the convolutions."""
        three, pointwise = (cast(nn.Conv2d, part.conv) for part in (self.conv1, self.conv2))
        if three.bias is None or pointwise.bias is None:
            raise ValueError('fold the norms into the convolutions first')
        conv = copy.deepcopy(three)
        with torch.no_grad():
            conv.weight += F.pad(pointwise.weight, [1, 1, 1, 1])
            cast(Tensor, conv.bias).add_(pointwise.bias)
        return MergedRepVGGBlock(conv, self.act)


class MergedRepVGGBlock(nn.Sequential):
    """What a :class:`RepVGGBlock` becomes for prediction."""

    def forward(self, x: Tensor) -> Tensor:
        conv, act = self
        return act(within_range(conv(x)))


class Fusion(nn.Module):
    """The fusion block of CCFF: two 1x1 convolutions, one followed by RepVGG blocks, summed (figure 4, right)."""

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, expansion: float, norm_cfg: dict, act_cfg: dict
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = ConvNormAct(in_channels, hidden, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv2 = ConvNormAct(in_channels, hidden, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.bottlenecks = nn.Sequential(*[RepVGGBlock(hidden, norm_cfg, act_cfg) for _ in range(num_blocks)])
        self.conv3: nn.Module = nn.Identity()
        if hidden != out_channels:
            self.conv3 = ConvNormAct(hidden, out_channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def forward(self, other: Tensor, x: Tensor) -> Tensor:
        """A map (B, C, h', w') of a neighbouring scale and this one's (B, C, h, w) to (B, out_channels, h, w)."""
        x = torch.cat([_resized(other, x.shape[-2:]), x], dim=1)
        return self.conv3(within_range(self.bottlenecks(self.conv1(x)) + self.conv2(x)))


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    """A map with another height and width, by repeating pixels."""
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode='nearest')


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
        num_fusion_blocks: RepVGG blocks in each fusion.
        temperature: of AIFI's position code.
        position_order: 'column_major' enumerates AIFI's position code as the authors' code does, which their weights
            expect; 'row_major' as the tokens run, which Hugging Face's port does. The same for square inputs; see
            :func:`~mmdet_iouquery.core.sine_position_encoding_2d`.
        norm_cfg, act_cfg: of the convolutions.

    Raises:
        ValueError: an unknown ``position_order``, an ``encoder_levels`` entry without a map, a ``start_level`` that
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
        temperature: float = 10000.0,
        position_order: str = 'column_major',
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_sequence(in_channels=in_channels)
        check_counts(least=None, start_level=start_level, num_outs=0 if num_outs is None else num_outs)
        check_counts(least=0, num_encoder_layers=num_encoder_layers)
        if not isinstance(encoder_levels, Sequence) or len(encoder_levels):  # an empty list is one too
            check_sequence(least=None, encoder_levels=encoder_levels)
        check_counts(feedforward_channels=feedforward_channels, num_fusion_blocks=num_fusion_blocks)
        check_heads(num_heads, out_channels=out_channels)
        check_numbers(most=1.0, dropout=dropout)
        check_numbers(least=1 / out_channels, expansion=expansion)
        check_numbers(least=1.0, temperature=temperature)
        check_configs(norm_cfg=norm_cfg, act_cfg=act_cfg)
        levels = len(in_channels) - start_level
        num_outs = levels if num_outs is None else num_outs
        _check_levels(len(in_channels), start_level, num_outs, encoder_levels)
        if position_order not in ('column_major', 'row_major'):
            raise ValueError(f"position_order must be 'column_major' or 'row_major', got {position_order!r}")
        norm_cfg, act_cfg = norm_cfg or {'type': 'BN'}, act_cfg or {'type': 'SiLU', 'inplace': True}
        self.in_channels, self.out_channels = tuple(in_channels), out_channels
        self.start_level, self.num_outs = start_level, num_outs
        self.encoder_levels = tuple(level % levels for level in encoder_levels) if num_encoder_layers else ()

        def conv(kernel_size: int, stride: int) -> ConvNormAct:
            return ConvNormAct(
                out_channels, out_channels, kernel_size, stride=stride, norm_cfg=norm_cfg, act_cfg=act_cfg
            )

        def fusion() -> Fusion:
            return Fusion(2 * out_channels, out_channels, num_fusion_blocks, expansion, norm_cfg, act_cfg)

        self.input_proj = nn.ModuleList(
            ConvNormAct(channels, out_channels, 1, norm_cfg=norm_cfg) for channels in self.in_channels[start_level:]
        )
        self.encoder = nn.ModuleList(
            AIFI(
                out_channels, num_heads, feedforward_channels, num_encoder_layers, dropout, temperature, position_order
            )
            for _ in self.encoder_levels
        )
        # top-down: from the coarsest level on; bottom-up: from the finest
        self.lateral_convs = nn.ModuleList(conv(1, 1) for _ in range(levels - 1))
        self.fpn_blocks = nn.ModuleList(fusion() for _ in range(levels - 1))
        self.downsample_convs = nn.ModuleList(conv(3, 2) for _ in range(levels - 1))
        self.pan_blocks = nn.ModuleList(fusion() for _ in range(levels - 1))
        self.extra_convs = nn.ModuleList(conv(3, 2) for _ in range(num_outs - levels))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, in_channels[i], h, w), finest first, to ``num_outs`` maps (B, out_channels, h, w).

        The sizes are those of the maps used; each further map has half the size of the one before, rounded up.

        Raises:
            ValueError: number or channels of the maps differ from ``in_channels``.
        """
        channels = tuple(x.shape[1] for x in inputs)
        if channels != self.in_channels:
            raise ValueError(
                f'HybridEncoder was built for maps of {self.in_channels} channels and was given {channels}'
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


def _check_levels(num_inputs: int, start_level: int, num_outs: int, encoder_levels: Sequence[int]) -> None:
    if not 0 <= start_level < num_inputs:
        raise ValueError(f'start_level must be one of the {num_inputs} maps of in_channels, got {start_level}')
    levels = num_inputs - start_level
    if levels < 2:
        raise ValueError(
            'a hybrid encoder fuses maps of several scales and was given one '
            f'({num_inputs} in in_channels, start_level {start_level}); give the backbone more out_indices, or leave '
            'it out: a DETR on one map has an encoder of its own'
        )
    if num_outs < levels:
        raise ValueError(f'num_outs must be at least the number of maps used, {levels}, got {num_outs}')
    if any(not -levels <= level < levels for level in encoder_levels):
        raise ValueError(f'encoder_levels {tuple(encoder_levels)} names a level that {levels} maps do not have')

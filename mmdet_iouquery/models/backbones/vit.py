"""Plain Vision Transformers with rotary position codes: those of DEIMv2, of DINOv3 and of ECDet.

Dosovitskiy et al. 2021; Touvron et al. 2021 (LayerScale); Darcet et al. 2024 (register tokens); Simeoni et al. 2025
(DINOv3); Huang et al. 2025 (DEIMv2); EdgeCrafter (2026) for the pyramid of convolutions.

Letters beside the package's: P tokens that stand for no patch (prefix), d channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...argument_checks import (
    check_choice,
    check_configs,
    check_counts,
    check_flags,
    check_heads,
    check_numbers,
    check_sequence,
)
from ...core import Rotary, TableCache, rotary_periods, rotary_tables, rotate, within_range
from ...errors import InputError
from ..layers import MLP, ConvNormAct, DotProductAttention, SwiGLU, as_map, as_tokens
from .frozen_stages import FrozenStages


class ViTSize(NamedTuple):
    """Of a Vision Transformer."""

    embed_dims: int
    """D."""
    num_heads: int
    feedforward_channels: int
    depth: int = 12
    """Blocks."""
    patch_size: int = 16
    """Side of a patch in px."""
    patch_embed: str = 'conv'
    """'conv': one convolution of the patch's size; 'pyramid': four of 3x3 and stride 2."""
    class_token: bool = True
    num_register_tokens: int = 0
    """Further tokens that stand for no patch."""
    ffn: str = 'mlp'
    """'mlp' with GELU, or 'swiglu'."""
    layer_scale: float | None = None
    """What each channel of what a block adds is multiplied by at first; None: blocks have no such factors."""
    final_norm: bool = False
    """Whether maps pass the norm that the last block's tokens pass."""
    key_bias: bool = True
    """Whether keys have a bias."""
    norm_eps: float = 1e-6
    rotary_base: float = 100.0
    rotary_rescale: float | None = None
    """R: in training, coordinates are multiplied by a number from 1 / R to R, drawn anew at every call; None: by 1."""


def _dinov3(embed_dims: int, num_heads: int, feedforward_channels: int, ffn: str = 'mlp') -> ViTSize:
    return ViTSize(
        embed_dims,
        num_heads,
        feedforward_channels,
        num_register_tokens=4,
        ffn=ffn,
        layer_scale=1e-5,
        final_norm=True,
        key_bias=False,
        norm_eps=1e-5,
        rotary_rescale=2.0,
    )


def _ecvit(embed_dims: int, num_heads: int, feedforward_channels: int) -> ViTSize:
    return ViTSize(
        embed_dims, num_heads, feedforward_channels, patch_embed='pyramid', class_token=False, num_register_tokens=1
    )


SIZES = {
    'tiny': ViTSize(192, 3, 768),
    'tiny+': ViTSize(256, 4, 1024),
    'dinov3-s': _dinov3(384, 6, 1536),
    'dinov3-s+': _dinov3(384, 6, 1536, ffn='swiglu'),
    'dinov3-b': _dinov3(768, 12, 3072),
    'ecvit-tiny': _ecvit(192, 3, 768),
    'ecvit-tiny+': _ecvit(256, 4, 1024),
    'ecvit-s': _ecvit(384, 6, 1536),
    'ecvit-s+': _ecvit(384, 6, 2304),
}
"""tiny and tiny+ are DEIMv2-S's and M's, dinov3-s and dinov3-s+ DEIMv2-L's and X's; ecvit-* ECDet-S's to X's."""


class PatchEmbed(nn.Module):
    """A convolution of the patches' size. Images are continued by zeros to whole patches, right and at the bottom."""

    def __init__(self, embed_dims: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, embed_dims, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D, h, w), H and W over the patch's side, rounded up."""
        below, right = (-side % self.patch_size for side in x.shape[-2:])
        if below or right:
            x = F.pad(x, [0, right, 0, below])
        return within_range(self.proj(x))


class PyramidPatchEmbed(nn.Module):
    """Four 3x3 convolutions of stride 2, the first three with norm and ReLU, each twice as wide as the one before."""

    def __init__(self, embed_dims: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()
        widths = [3, embed_dims // 8, embed_dims // 4, embed_dims // 2]
        act_cfg = {'type': 'ReLU', 'inplace': True}
        self.convs = nn.Sequential(
            *(ConvNormAct(a, b, 3, stride=2, norm_cfg=norm_cfg, act_cfg=act_cfg) for a, b in zip(widths, widths[1:]))
        )
        self.proj = nn.Conv2d(widths[-1], embed_dims, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D, h, w), a sixteenth of H and W, rounded up."""
        return within_range(self.proj(self.convs(x)))


class UnbiasedKeys(nn.Linear):
    """A projection to queries, keys and values: (..., D) to (..., 3D). The keys' part of its bias takes no part."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__(embed_dims, 3 * embed_dims)

    def used_bias(self) -> Tensor:
        """(3D,), 0 for the keys."""
        query, key, value = self.bias.chunk(3)
        return torch.cat([query, torch.zeros_like(key), value])

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.used_bias())


class Attention(nn.Module):
    """Self-attention; queries and keys are turned by the tokens' places."""

    def __init__(self, embed_dims: int, num_heads: int, key_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims) if key_bias else UnbiasedKeys(embed_dims)
        self.dot_product = DotProductAttention()
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, tokens: Tensor, rotary: Rotary) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        projected = within_range(self.qkv(tokens)).unflatten(-1, (3, self.num_heads, -1))
        query, key = rotate(projected[:, :, :2], rotary).unbind(2)
        attended = self.dot_product(*(x.transpose(1, 2) for x in (query, key, projected[:, :, 2])))
        return within_range(self.proj(attended.transpose(1, 2).flatten(2)))


class LayerScale(nn.Module):
    """A learnt factor for each channel (Touvron et al. 2021, "Going deeper with image transformers", section 2)."""

    def __init__(self, embed_dims: int, value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dims,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention, then a feed-forward network, each of what a layer norm gives, and added."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        dims, hidden = size.embed_dims, size.feedforward_channels
        self.norm1 = nn.LayerNorm(dims, eps=size.norm_eps)
        self.attn = Attention(dims, size.num_heads, size.key_bias)
        self.norm2 = nn.LayerNorm(dims, eps=size.norm_eps)
        self.ffn: nn.Module = (
            SwiGLU(dims, hidden)
            if size.ffn == 'swiglu'
            else MLP(dims, hidden, dims, num_layers=2, act_cfg={'type': 'GELU'})
        )
        self.scale1, self.scale2 = (
            nn.Identity() if size.layer_scale is None else LayerScale(dims, size.layer_scale) for _ in range(2)
        )

    def forward(self, tokens: Tensor, rotary: Rotary) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        tokens = within_range(tokens + self.scale1(self.attn(self.norm1(tokens), rotary)))
        return within_range(tokens + self.scale2(self.ffn(self.norm2(tokens))))


@MODELS.register_module()
class VisionTransformer(FrozenStages):
    """The patches' tokens after chosen blocks, as maps of one stride, of images of any size.

    A patch that an image ends in is continued by zeros. All blocks are built, so that published weights fit; those
    behind the last of ``out_indices`` are neither run nor trained.

    Weights of linear layers and tokens start from a normal distribution of deviation 0.02, biases from zero,
    convolutions as PyTorch's, all as in the authors' code of DEIMv2-S and ECDet. The state dict holds
    ``rotary_periods``: weights trained with others, or with heads of another width, do not load.

    Args:
        arch: one of :data:`SIZES`.
        size_cfg: numbers of ``arch`` that shall be others: fields of :class:`ViTSize`.
        out_indices: blocks whose tokens are given, numbered from 0, ascending; None: the last.
        frozen_stages: patch embedding, further tokens and as many blocks do not learn; -1: none.
        norm_cfg: of the pyramid's convolutions; None: ``dict(type='BN')``.
        norm_eval: norms keep their running statistics.
        with_cp: in training, compute blocks' inner values anew for gradients rather than keep them.
        init_cfg: as everywhere in mmdet.

    Raises:
        InputError: an unknown ``arch``, a block that it does not have, or numbers that do not fit each other.
    """

    def __init__(
        self,
        arch: str,
        *,
        size_cfg: dict[str, Any] | None = None,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_configs(norm_cfg=norm_cfg)
        check_flags(norm_eval=norm_eval, with_cp=with_cp)
        self.size = size = size_of(arch, size_cfg)
        out_indices = (size.depth - 1,) if out_indices is None else out_indices
        _check_blocks(arch, size.depth, out_indices, frozen_stages)
        self.out_indices, self.frozen_stages = tuple(out_indices), frozen_stages
        self.norm_eval, self.with_cp = norm_eval, with_cp
        self.patch_embed: PatchEmbed | PyramidPatchEmbed = (
            PyramidPatchEmbed(size.embed_dims, norm_cfg or {'type': 'BN'})
            if size.patch_embed == 'pyramid'
            else PatchEmbed(size.embed_dims, size.patch_size)
        )
        self.num_prefix = int(size.class_token) + size.num_register_tokens
        self.class_token = nn.Parameter(torch.zeros(1, 1, size.embed_dims)) if size.class_token else None
        registers = size.num_register_tokens
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, size.embed_dims)) if registers else None
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.embed_dims, eps=size.norm_eps) if size.final_norm else None
        self.register_buffer('rotary_periods', rotary_periods(size.embed_dims // size.num_heads, base=size.rotary_base))
        self._tables = TableCache()
        self._draw_weights()
        for part in [*self._frozen(), *self.blocks[self.out_indices[-1] + 1 :]]:
            part.requires_grad_(False)
        if frozen_stages >= 0:
            for tokens in self._prefix():
                tokens.requires_grad_(False)

    def _draw_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for tokens in self._prefix():
            nn.init.normal_(tokens, std=0.02)

    def _prefix(self) -> list[nn.Parameter]:
        return [tokens for tokens in (self.class_token, self.register_tokens) if tokens is not None]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W), in any precision, to maps (B, D, h, w), channels last, in that of the weights.

        h and w are H and W over the patch's side, rounded up.
        """
        patches = self.patch_embed(x.to(self.dtype).contiguous(memory_format=torch.channels_last))
        prefix = [tokens.expand(patches.shape[0], -1, -1) for tokens in self._prefix()]
        tokens = torch.cat([*prefix, as_tokens(patches)], dim=1)
        rotary = self._rotary(patches)
        maps = []
        for i, block in enumerate(self.blocks[: self.out_indices[-1] + 1]):
            if self.with_cp and self.training and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, rotary, use_reentrant=False)
            else:
                tokens = block(tokens, rotary)
            if i in self.out_indices:
                maps.append(self._as_map(tokens, patches))
        return tuple(maps)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.patch_embed.proj.weight.dtype

    def _rotary(self, patches: Tensor) -> Rotary:
        """The code of a map's tokens; in training, of a map that looks larger or smaller than it is."""
        size, (height, width), device = self.size, patches.shape[-2:], patches.device

        def make(scale: Tensor | None = None) -> Rotary:
            return rotary_tables(
                height,
                width,
                size.embed_dims // size.num_heads,
                base=size.rotary_base,
                num_prefix=self.num_prefix,
                scale=scale,
                device=device,
            )

        if self.training and size.rotary_rescale is not None:
            most = math.log(size.rotary_rescale)
            return make(torch.empty(1, device=device).uniform_(-most, most).exp())
        return cast(Rotary, self._tables((height, width, device), make))

    def _as_map(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """The patches' tokens of (B, P + h * w, D), as the map (B, D, h, w) that they come from."""
        tokens = tokens[:, self.num_prefix :]
        if self.norm is not None:
            tokens = self.norm(tokens)
        return as_map(tokens, patches)

    def _frozen(self) -> list[nn.Module]:
        return [self.patch_embed, *self.blocks[: self.frozen_stages]] if self.frozen_stages >= 0 else []

    def check_constants(self, state_dict: Any, prefix: str = '') -> None:
        """Raise :class:`InputError` where weights were trained with other rotary periods, or other heads.

        Args:
            state_dict: holds those of this part, under ``prefix`` and their names.
        """
        trained, own = state_dict.get(f'{prefix}rotary_periods'), cast(Tensor, self.rotary_periods)
        if not isinstance(trained, Tensor):
            return
        if trained.shape != own.shape:
            heads = self.size.embed_dims // (4 * max(1, trained.numel()))
            raise InputError(
                f'the weights were trained with heads of {4 * trained.numel()} channels and this ViT has '
                f'{self.size.num_heads} of {4 * own.numel()}; set size_cfg=dict(num_heads={heads}) in the config'
            )
        if not torch.allclose(trained.double(), own.double().cpu().to(trained.device), rtol=1e-2):
            raise InputError(
                f'the weights were trained with rotary periods up to {trained.max():.3g} and this ViT has them up to '
                f'{own.max():.3g}; set size_cfg=dict(rotary_base=...) in the config to that of the weights'
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        self.check_constants(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *others)


def size_of(arch: str, size_cfg: dict[str, Any] | None = None) -> ViTSize:
    """The numbers of one of :data:`SIZES`, some of them replaced.

    Raises:
        InputError: there is no such size or number, or numbers do not fit each other.
    """
    check_choice([*SIZES], arch=arch)
    check_configs(size_cfg=size_cfg)
    unknown = [name for name in size_cfg or {} if name not in ViTSize._fields]
    if unknown:
        raise InputError(
            f'size_cfg has {", ".join(unknown)}, which a ViT has not; name some of {", ".join(ViTSize._fields)}'
        )
    size = SIZES[arch]._replace(**(size_cfg or {}))
    check_heads(size.num_heads, embed_dims=size.embed_dims)
    check_counts(feedforward_channels=size.feedforward_channels, depth=size.depth, patch_size=size.patch_size)
    check_counts(least=0, num_register_tokens=size.num_register_tokens)
    check_choice(('conv', 'pyramid'), patch_embed=size.patch_embed)
    check_choice(('mlp', 'swiglu'), ffn=size.ffn)
    check_flags(class_token=size.class_token, final_norm=size.final_norm, key_bias=size.key_bias)
    check_numbers(norm_eps=size.norm_eps)
    check_numbers(least=1.0, rotary_base=size.rotary_base, rotary_rescale=size.rotary_rescale or 1.0)
    check_numbers(layer_scale=size.layer_scale or 0.0)
    if (size.embed_dims // size.num_heads) % 4:
        raise InputError(
            f'a head has embed_dims / num_heads channels, here {size.embed_dims} / {size.num_heads} = '
            f'{size.embed_dims // size.num_heads}, which must be divisible by 4 for sine and cosine on two axes'
        )
    if size.patch_embed == 'pyramid' and (size.patch_size != 16 or size.embed_dims % 8):
        raise InputError(
            f"patch_embed='pyramid' halves an image four times, for patches of 16 px and embed_dims divisible by 8, "
            f"got patch_size {size.patch_size} and embed_dims {size.embed_dims}; name 16, or patch_embed='conv'"
        )
    return size


def _check_blocks(arch: str, depth: int, out_indices: Sequence[int], frozen_stages: int) -> None:
    check_counts(least=-1, frozen_stages=frozen_stages)
    check_sequence(least=0, out_indices=out_indices)
    ascending = list(out_indices) == sorted(set(out_indices))
    if frozen_stages > depth or max(out_indices) >= depth or not ascending:
        raise InputError(
            f'ViT {arch} has {depth} blocks: frozen_stages must be at most {depth}, got {frozen_stages}, and '
            f'out_indices ascend from 0 to at most {depth - 1}, got {tuple(out_indices)}'
        )

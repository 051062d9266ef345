"""Deformable attention by Triton as an operator of torch, which ``torch.compile`` takes as it is.

One launch forward and one backward, whatever the levels and points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_programs import deformable_attention_backward, deformable_attention_forward

_WARP_BYTES = 32 * 16
"""What the threads of a warp read at once: 16 bytes each, the most that there are."""


@torch.library.custom_op('mmdet_iouquery::triton_attention', mutates_args=())
def attention(
    value: Tensor, sizes: Sequence[int], points: Sequence[int], locations: Tensor, weights: Tensor, discrete: bool
) -> Tensor:
    """As a back end's ``attend``, with height and width of each level in one row of ``sizes``."""
    _check(value, sizes, points, locations, weights)
    value = _with_dense_tokens(value)
    output = _like_output(value, sizes, points, locations, weights, discrete)
    constants = _constants(value, points, locations, discrete, value.element_size())
    with torch.cuda.device_of(value):
        deformable_attention_forward[_grid(locations, constants)](
            output,
            value,
            locations.contiguous(),
            weights.contiguous(),
            tuple(map(float, sizes)),
            locations.shape[1],
            *value.stride()[:2],
            **constants,
        )
    return output


@torch.library.custom_op('mmdet_iouquery::triton_attention_backward', mutates_args=())
def attention_backward(
    grad_output: Tensor,
    value: Tensor,
    sizes: Sequence[int],
    points: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    discrete: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights; that of discrete locations is empty."""
    _refuse_if_deterministic()
    value = _with_dense_tokens(value)
    grad_value = torch.zeros(value.shape, dtype=_type_of_sums(value, locations), device=value.device)
    grad_locations = torch.empty(0 if discrete else locations.shape, dtype=locations.dtype, device=value.device)
    grad_weights = torch.empty(weights.shape, dtype=weights.dtype, device=value.device)
    constants = _constants(value, points, locations, discrete, grad_value.element_size())
    with torch.cuda.device_of(value):
        deformable_attention_backward[_grid(locations, constants)](
            grad_value,
            grad_locations,
            grad_weights,
            grad_output.contiguous(),
            value,
            locations.contiguous(),
            weights.contiguous(),
            tuple(map(float, sizes)),
            locations.shape[1],
            value.shape[1],
            *value.stride()[:2],
            **constants,
        )
    return grad_value.to(value.dtype), grad_locations, grad_weights


@attention.register_fake
def _like_output(
    value: Tensor, sizes: Sequence[int], points: Sequence[int], locations: Tensor, weights: Tensor, discrete: bool
) -> Tensor:
    return value.new_empty((*locations.shape[:2], value.shape[2] * value.shape[3]))


@attention_backward.register_fake
def _like_gradients(
    grad_output: Tensor,
    value: Tensor,
    sizes: Sequence[int],
    points: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    discrete: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        locations.new_empty(0 if discrete else locations.shape),
        weights.new_empty(weights.shape),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, ctx.sizes, ctx.points, locations, weights, ctx.discrete = inputs
    ctx.save_for_backward(value, locations, weights)


def _gradients(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    value, locations, weights = ctx.saved_tensors
    grad_value, grad_locations, grad_weights = attention_backward(
        grad_output, value, ctx.sizes, ctx.points, locations, weights, ctx.discrete
    )
    return grad_value, None, None, None if ctx.discrete else grad_locations, grad_weights, None


attention.register_autograd(_gradients, setup_context=_keep)


def _check(value: Tensor, sizes: Sequence[int], points: Sequence[int], locations: Tensor, weights: Tensor) -> None:
    """Raises a ValueError where a kernel would read beyond a tensor."""
    tokens = sum(height * width for height, width in zip(sizes[::2], sizes[1::2]))
    if tokens != value.shape[1] or 2 * len(points) != len(sizes):
        raise ValueError(f'value has {value.shape[1]} tokens, but the {len(points)} maps {sizes} have {tokens}')
    shape = (value.shape[0], locations.shape[1], value.shape[2], sum(points))
    if locations.shape != (*shape, 2) or weights.shape != shape:
        raise ValueError(
            f'locations have to be (B, Q, H, S, 2) = {(*shape, 2)} and weights {shape}, '
            f'but are {tuple(locations.shape)} and {tuple(weights.shape)}'
        )


def _refuse_if_deterministic() -> None:
    """As torch does for operators of its own that add atomically, ``grid_sample``'s gradient on CUDA among them."""
    if torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(
            'the gradient of deformable attention by Triton is not deterministic; choose another back end, '
            'or torch.use_deterministic_algorithms(True, warn_only=True)'
        )


def _with_dense_tokens(value: Tensor) -> Tensor:
    """A token's channels have to lie side by side, tokens need not: a part of a wider projection is not copied."""
    return value if value.stride()[2:] == (value.shape[3], 1) else value.contiguous()


def _type_of_sums(value: Tensor, locations: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (value.dtype, locations.dtype) else torch.float32


def _constants(
    value: Tensor, points: Sequence[int], locations: Tensor, discrete: bool, element_size: int
) -> dict[str, Any]:
    """What the programs are compiled for. As many queries share a warp as fill it with channels of ``element_size``."""
    heads, head_dims = value.shape[2:]
    block_dims = triton.next_power_of_2(head_dims)
    return {
        'HEADS': heads,
        'HEAD_DIMS': head_dims,
        'POINTS': tuple(points),
        'ALL_POINTS': sum(points),
        'CORNERS': 1 if discrete else 4,
        'BLOCK_QUERIES': max(1, _WARP_BYTES // (block_dims * element_size)),
        'BLOCK_DIMS': block_dims,
        'TYPE': tl.float64 if _type_of_sums(value, locations) == torch.float64 else tl.float32,
        'num_warps': 1,
        'enable_fp_fusion': True,
    }


def _grid(locations: Tensor, constants: dict[str, Any]) -> tuple[int, int, int]:
    images, queries, heads = locations.shape[:3]
    return -(-queries // constants['BLOCK_QUERIES']), heads, images

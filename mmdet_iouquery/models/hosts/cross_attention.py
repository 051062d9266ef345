"""Where queries look in cross-attention: of this package's modules, and of those in mmdet's detection transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Union

import torch
from torch import Tensor, nn

from ..layers import ConcatenatedCrossAttention, DeformableAttention, DenseAttention, SampledAttention

Attention = Union[DenseAttention, SampledAttention]
Inputs = dict[str, Any]


def cross_attentions(decoder: nn.Module) -> list[nn.Module]:
    """The cross-attention modules of a decoder's layers, from the first on, of those kinds that can be read."""
    attentions = (module for name, module in decoder.named_modules() if name.endswith('.cross_attn'))
    return [module for module in attentions if type(module).__name__ in _READERS]


def is_dense(module: nn.Module) -> bool:
    """Whether such a module attends to every token."""
    return type(module).__name__ in _TOKEN_CONTENT


def bind_inputs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    """What a module was called with, by name."""
    return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)


def attention_of(module: nn.Module, inputs: Inputs, queries: Tensor, *, content: bool = True) -> Attention:
    """Where some of the queries of a call look.

    Args:
        module: a cross-attention module, called with ``inputs`` (:func:`bind_inputs`).
        queries: (K,) int64, indices of the queries to tell of: dense weights of all would be large.
        content: False sets the content of queries and tokens to zero, so that only what depends on positions is left:
            the positional attention of DAB-DETR's figures. Dense modules only.

    Raises:
        ValueError: a module of a kind that is not known, or ``content=False`` for one that samples.
    """
    name = type(module).__name__
    if name not in _READERS:
        raise ValueError(f'{name} is no cross-attention that can be read; take one of {", ".join(_READERS)}')
    inputs = {key: _chosen(inputs[key], queries) if key in _BY_QUERY else inputs[key] for key in inputs}
    if not content:
        if name not in _TOKEN_CONTENT:
            raise ValueError(
                f'{name} samples points; it has no attention by position alone; take a module with dense attention'
            )
        inputs = {**inputs, **{key: torch.zeros_like(inputs[key]) for key in _TOKEN_CONTENT[name]}}
    return _READERS[name](module, inputs)


_BY_QUERY = ('content', 'query', 'boxes', 'query_pos', 'query_sine', 'ref_sine_embed', 'reference_points', 'identity')


def _chosen(value: Any, queries: Tensor) -> Any:
    return value[:, queries] if isinstance(value, Tensor) else value


def _deformable(module: Any, inputs: Inputs) -> SampledAttention:
    return module.sampling(inputs['query'], inputs['boxes'], inputs['memory'])


def _concatenated(module: Any, inputs: Inputs) -> DenseAttention:
    return module.attention(**inputs)


def _mmcv_deformable(module: Any, inputs: Inputs) -> SampledAttention:
    """mmcv's MultiScaleDeformableAttention: points around boxes, or around points in tokens."""
    query, reference = _positioned(inputs, 'query'), inputs['reference_points'][:, :, None, :, None, :]
    grid = (module.num_heads, module.num_levels, module.num_points)
    offsets = module.sampling_offsets(query).unflatten(-1, (*grid, 2))
    weights = module.attention_weights(query).unflatten(-1, (grid[0], -1)).softmax(-1)
    if reference.shape[-1] == 4:
        scale = 0.5 / module.num_points * reference[..., 2:]
    else:
        scale = 1 / inputs['spatial_shapes'].flip(-1)[:, None].to(offsets.dtype)
    locations = (reference[..., :2] + offsets * scale).flatten(3, 4)
    return SampledAttention(locations, weights, (module.num_points,) * module.num_levels)


def _mmdet_conditional(module: Any, inputs: Inputs) -> DenseAttention:
    """mmdet's ConditionalAttention: content and position side by side in each head."""
    q_content, k_content = module.qcontent_proj(inputs['query']), module.kcontent_proj(inputs['key'])
    k_pos = module.kpos_proj(inputs['key_pos']).expand_as(k_content)
    if inputs.get('is_first') or module.keep_query_pos:
        q_content, k_content = q_content + module.qpos_proj(inputs['query_pos']), k_content + k_pos
    pairs = ((q_content, k_content), (module.qpos_sine_proj(inputs['ref_sine_embed']), k_pos))
    scores = [
        torch.einsum('bqhd,bnhd->bhqn', *(x.unflatten(-1, (module.num_heads, -1)) for x in pair)) for pair in pairs
    ]
    width = 2 * q_content.shape[-1] // module.num_heads
    return _softmax((scores[0] + scores[1]) * width**-0.5, inputs)


def _mmcv_multi_head(module: Any, inputs: Inputs) -> DenseAttention:
    """mmcv's MultiheadAttention around torch's: position added to content."""
    query, key = _positioned(inputs, 'query'), _positioned(inputs, 'key')
    inner = module.attn
    width = inner.embed_dim
    weight, bias = inner.in_proj_weight[: 2 * width], inner.in_proj_bias[: 2 * width]
    q = nn.functional.linear(query, weight[:width], bias[:width]).unflatten(-1, (inner.num_heads, -1))
    k = nn.functional.linear(key, weight[width:], bias[width:]).unflatten(-1, (inner.num_heads, -1))
    return _softmax(torch.einsum('bqhd,bnhd->bhqn', q, k) * q.shape[-1] ** -0.5, inputs)


def _positioned(inputs: Inputs, name: str) -> Tensor:
    position = inputs.get(f'{name}_pos')
    return inputs[name] if position is None else inputs[name] + position


def _softmax(score: Tensor, inputs: Inputs) -> DenseAttention:
    padding = inputs.get('key_padding_mask')
    if padding is not None:
        score = score.masked_fill(padding[:, None, None, :], -torch.inf)
    return DenseAttention(score.softmax(-1))


_READERS: dict[str, Callable[[Any, Inputs], Attention]] = {
    DeformableAttention.__name__: _deformable,
    ConcatenatedCrossAttention.__name__: _concatenated,
    'MultiScaleDeformableAttention': _mmcv_deformable,
    'ConditionalAttention': _mmdet_conditional,
    'MultiheadAttention': _mmcv_multi_head,
}
_TOKEN_CONTENT = {
    ConcatenatedCrossAttention.__name__: ('content', 'tokens'),
    'ConditionalAttention': ('query', 'key'),
    'MultiheadAttention': ('query', 'key'),
}
"""Inputs of the dense kinds that hold content."""

"""Give a detector's weights another set of classes: rows of classes that stay are kept, the others start afresh."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InputError

PRIOR = 0.01
"""Probability that a fresh class starts from (Lin et al. 2017, section 4.1)."""

_CLASS_HEAD = re.compile(r'(?:.*\.)?(?:query_selector\.cls_head|decoder\.cls_heads\.\d+)\.(weight|bias)')
_LABEL_EMBEDDING = re.compile(r'(?:.*\.)?denoising\.label_embedding\.(weight)')


def has_class_rows(key: str) -> bool:
    """Whether the weight of that name has a row for each class: class heads, and the embedding of denoising labels."""
    return bool(_CLASS_HEAD.fullmatch(key) or _LABEL_EMBEDDING.fullmatch(key))


def select_classes(
    state_dict: Mapping[str, Tensor],
    source_classes: Sequence[str],
    target_classes: Sequence[str],
    generator_seed: int = 0,
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Weights for ``target_classes``, from weights under our names whose rows are ``source_classes``.

    Concerns the selector's and every decoder layer's class head, (C, D) and (C,), and the denoising label embedding,
    (C + 1, D), whose last row, the padding, is zero. A class that both lists name, upper and lower case being the same,
    keeps its rows bit for bit; the others are initialised as a new model's are, the same for the same seed. The head of
    a selector that tells objects only (``class_agnostic``), of one row where the decoder has several, stays as it is.

    Returns:
        The weights, the classes kept and the classes that are fresh, both in the order of ``target_classes``.

    Raises:
        InputError: a repeated name, an empty list, no class head, or as many source names as no class head has rows.
    """
    rows = {name: i for i, name in enumerate(_distinct(source_classes, 'source'))}
    origin = [rows.get(name) for name in _distinct(target_classes, 'target')]
    generator = torch.Generator().manual_seed(generator_seed)
    selected = dict(state_dict)
    for key in _class_heads(state_dict):
        _check_rows(key, state_dict[key], len(source_classes), 0)
        selected[key] = _rows(state_dict[key], origin, _fresh_head_rows(state_dict[key], len(origin), generator))
    for key in (key for key in sorted(state_dict) if _LABEL_EMBEDDING.fullmatch(key)):
        old = state_dict[key]
        _check_rows(key, old, len(source_classes), 1)
        fresh = torch.randn(len(origin), *old.shape[1:], generator=generator)
        selected[key] = torch.cat([_rows(old, origin, fresh), torch.zeros_like(old[:1])])
    kept = [name for name, row in zip(target_classes, origin) if row is not None]
    return selected, kept, [name for name, row in zip(target_classes, origin) if row is None]


def num_classes_of(state_dict: Mapping[str, Tensor]) -> int:
    """How many classes a detector's class heads have, weights under our names.

    Raises:
        InputError: there is no class head.
    """
    return len(state_dict[_class_heads(state_dict)[0]])


def _class_heads(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Keys of the heads that have a row for each class."""
    heads = [key for key in sorted(state_dict) if _CLASS_HEAD.fullmatch(key)]
    if any('decoder.' in key and len(state_dict[key]) > 1 for key in heads if state_dict[key].dim()):
        heads = [key for key in heads if 'decoder.' in key or state_dict[key].shape[:1] != (1,)]
    if not heads:
        raise InputError('there is no class head in the weights; --classes needs a whole detector, not a bare backbone')
    return heads


def _distinct(names: Sequence[str], role: str) -> list[str]:
    """The names without upper case."""
    folded = [name.casefold() for name in names]
    repeated = sorted({name for name in folded if folded.count(name) > 1})
    if repeated:
        raise InputError(
            f'the {role} classes name {", ".join(map(repr, repeated))} more than once (upper and lower case are the '
            'same); give each class one name of its own'
        )
    if not all(folded) or not folded:
        raise InputError(f'the list of {role} classes is empty or has an empty name; give every class a name')
    return folded


def _check_rows(key: str, value: Tensor, num_names: int, padding: int) -> None:
    if value.dim() != (1 if key.endswith('bias') else 2):
        raise InputError(
            f'{key} has the shape {tuple(value.shape)}, which is not that of a class head; is the file whole?'
        )
    rows = len(value)
    if rows != num_names + padding:
        of_padding = ' (one of them padding)' if padding else ''
        raise InputError(
            f'{num_names} source classes were named, but {key} has {rows} rows{of_padding}; name the classes that '
            'these weights were trained for, one for each row, in their order'
        )


def _fresh_head_rows(like: Tensor, num_rows: int, generator: torch.Generator) -> Tensor:
    """Rows of a new linear layer: PyTorch's uniform weights; a bias of which the sigmoid is the prior."""
    if like.dim() == 1:
        return torch.full((num_rows,), -math.log((1 - PRIOR) / PRIOR))
    bound = 1 / math.sqrt(like.shape[1])
    return (torch.rand(num_rows, like.shape[1], generator=generator) * 2 - 1) * bound


def _rows(old: Tensor, origin: Sequence[int | None], fresh: Tensor) -> Tensor:
    """Row ``origin[i]`` of ``old`` at i, or that of ``fresh`` where there is none."""
    new = fresh.to(old)
    for i, row in enumerate(origin):
        if row is not None:
            new[i] = old[row]
    return new

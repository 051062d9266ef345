"""Rename the weights of other projects' RT-DETR to ours, and back. Every key is accounted for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import InputError
from . import rtdetr

SOURCES = ('rtdetr', 'rtdetr_backbone')


def unwrap(checkpoint: Mapping) -> dict[str, Tensor]:
    """The weights inside a checkpoint file's content: those of its EMA where it has one, without wrappers' prefixes.

    Knows ``{'ema': {'module': ...}}``, ``{'model': ...}``, ``{'state_dict': ...}``, ``{'module': ...}`` and keys that all
    begin with ``module.``.
    """
    for name in ('ema', 'module', 'model', 'state_dict'):
        if isinstance(checkpoint.get(name), Mapping):
            return unwrap(checkpoint[name])
    weights = {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if weights and all(key.startswith('module.') for key in weights):
        weights = {key[len('module.') :]: value for key, value in weights.items()}
    return weights


def convert(state_dict: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Weights of ``source`` under our names, ready for a strict load.

    Raises:
        InputError: an unknown source, or a key that the source does not have.
    """
    if source == 'rtdetr':
        weights = unwrap(state_dict)
        return {rtdetr.DETECTOR.to_ours(k): v for k, v in weights.items() if not k.startswith(rtdetr.CONSTANTS)}
    if source == 'rtdetr_backbone':
        return {rtdetr.BACKBONE.to_ours(k): v for k, v in unwrap(state_dict).items()}
    raise InputError(f'unknown source {source!r}; choose one of {", ".join(SOURCES)}')


def convert_back(state_dict: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Our weights under the names of ``source``."""
    if source == 'rtdetr':
        return {rtdetr.DETECTOR.to_theirs(k): v for k, v in unwrap(state_dict).items()}
    raise InputError(f'cannot write for {source!r}; choose rtdetr')

"""Rename the weights of other projects' RT-DETR and D-FINE to ours, and back. Every key is accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from torch import Tensor

from ..choices import AUTHORS, SOURCES, TARGETS
from ..errors import InputError
from . import dab_detr, deimv2, dfine, ecdet, hgnetv2, rtdetr, transformers, vit
from .decoder_buffers import decoder_buffers
from .prefix_map import PrefixMap, is_of_training_alone

WRAPPERS = ('ema', 'module', 'model', 'state_dict')
_PREFIXES = ('module.', '_orig_mod.')

FIXED_SIZE = 'tables for one input size; here they are computed for the size at hand'
POINT_COUNTS = "one over each level's number of points, which the config gives as num_points"
REPEATED = 'equal to a key that is kept'
MASK_TOKEN = 'the token of hidden patches, which only its own training reads'
KEY_BIAS_MASKS = 'which part of a bias counts, which the config gives as key_bias'
CLASSIFIER = 'the classifier behind the backbone, which a detector has not'
TRAINING_ALONE = 'of a distillation, which the names written have no place for'


class Unwrapped(NamedTuple):
    """The weights found in a checkpoint file's content."""

    weights: dict[str, Tensor]
    wrapper: str
    """Path to them, e.g. ``ema.module``; empty: they lie at the top."""
    left: list[str]
    """What else the file holds, by path: an optimiser's state, weights that are not those of the EMA, numbers."""


class Conversion(NamedTuple):
    """Renamed weights, and the account of what was not taken over."""

    weights: dict[str, Tensor]
    dropped: dict[str, list[str]]
    """Reason to the source's keys."""
    num_read: int
    """Keys that the source's weights had: those dropped, those joined, and as many more as stand alone here."""
    num_joined: int
    """Keys that make one with others: q_proj, k_proj and v_proj, and two halves of a gated network's first layer."""
    num_made: int
    """What those make, and what follows from a file's other weights: numbers that it has no key of."""
    wrapper: str
    """See :class:`Unwrapped`, also for ``left``."""
    left: list[str]


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights inside a checkpoint file's content: those of its EMA where it has one, without wrappers' prefixes.

    Knows ``{'ema': {'module': ...}}``, ``{'model': ...}``, ``{'state_dict': ...}``, ``{'module': ...}`` and keys that
    all begin with ``module.`` or ``_orig_mod.``. A checkpoint of mmengine's ``EMAHook`` has the EMA in ``state_dict``.

    Raises:
        InputError: there are no weights.
    """
    return unwrap_accounted(checkpoint).weights


def unwrap_accounted(checkpoint: Mapping[str, Any]) -> Unwrapped:
    """:func:`unwrap`, with where the weights were and what lay beside them."""
    for name in WRAPPERS:
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping) and _holds_weights(inner):
            weights, wrapper, left = unwrap_accounted(inner)
            beside = [str(key) for key in checkpoint if key != name]
            return Unwrapped(weights, f'{name}.{wrapper}'.rstrip('.'), beside + [f'{name}.{path}' for path in left])
    weights = {str(key): value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if not weights:
        raise InputError(
            f'there are no weights in the checkpoint: it holds {_shortened(checkpoint)}; name a file with the weights '
            'of a detector'
        )
    left = [str(key) for key, value in checkpoint.items() if not isinstance(value, Tensor)]
    return Unwrapped(_without_prefixes(weights), '', left)


def _holds_weights(content: Mapping[str, Any]) -> bool:
    inner = (content.get(name) for name in WRAPPERS)
    return any(isinstance(value, Tensor) for value in content.values()) or any(
        isinstance(value, Mapping) and _holds_weights(value) for value in inner
    )


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in weights):
            return _without_prefixes({key[len(prefix) :]: value for key, value in weights.items()})
    return weights


def _shortened(content: Mapping[Any, Any], most: int = 5) -> str:
    names = [repr(key) for key in content]
    more = [f'{len(names) - most} more'] if len(names) > most else []
    return ', '.join([*names[:most], *more]) or 'nothing'


def convert(state_dict: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Weights of ``source`` (one of :data:`SOURCES`) under our names, ready for a strict load.

    Raises:
        InputError: an unknown source, no weights, or a key that the source does not have.
    """
    return convert_accounted(state_dict, source).weights


def convert_accounted(state_dict: Mapping[str, Any], source: str) -> Conversion:
    """:func:`convert`, with the keys that were dropped and why."""
    if source not in SOURCES:
        raise InputError(f'unknown source {source!r}; choose one of {", ".join(SOURCES)}')
    weights, wrapper, left = unwrap_accounted(state_dict)
    try:
        ours, dropped, num_joined, num_made = _converted(weights, source)
    except InputError as error:
        others = [name for name in sources_of(weights) if name != source]
        if not others:
            raise
        raise InputError(
            f'{error} All keys of the file are those of the source {" or ".join(others)}; name that with --source'
        ) from error
    return Conversion(ours, dropped, len(weights), num_joined, num_made, wrapper, left)


def sources_of(weights: Mapping[str, Tensor]) -> list[str]:
    """Those of :data:`SOURCES` whose names all keys are: several, where they name alike."""
    return [name for name in SOURCES if _has_keys_of(name, dict(weights))]


def _converted(weights: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict[str, list[str]], int, int]:
    """The weights under our names, and ``dropped``, ``num_joined`` and ``num_made`` of the account."""
    dropped: dict[str, list[str]] = {}
    num_joined = num_made = 0
    if source in AUTHORS:
        dropped[FIXED_SIZE] = [key for key in weights if key.startswith(rtdetr.CONSTANTS)]
        if source != 'rtdetr':
            dropped[POINT_COUNTS] = [key for key in weights if key.endswith(rtdetr.POINT_COUNTS)]
            dropped[REPEATED] = (deimv2 if source == 'deimv2' else dfine).repeated(weights)
        named = weights
        if source == 'deimv2':
            dropped[MASK_TOKEN], dropped[KEY_BIAS_MASKS] = vit.without_weights(weights)
            named = vit.join_gates(weights)
        num_made = len(weights) - len(named)
        num_joined = 2 * num_made
        ours = _renamed(_names_of(source, named), named, without=chain(*dropped.values()))
    elif source == 'rtdetr_backbone':
        ours = _renamed(rtdetr.BACKBONE, weights)
    elif source == 'hgnetv2_backbone':
        dropped[CLASSIFIER] = [key for key in weights if key.startswith(hgnetv2.CLASSIFIER)]
        ours = _renamed(hgnetv2.BACKBONE, weights, without=dropped[CLASSIFIER])
    elif source == 'vit_backbone':
        named, num_joined, num_made = vit.file_names(weights)
        dropped[MASK_TOKEN], dropped[KEY_BIAS_MASKS] = vit.without_weights(weights)
        ours = _renamed(vit.backbone(named), named, without=map(vit.own_name, chain(*dropped.values())))
    elif source == 'transformers':
        named, dropped[REPEATED] = transformers.file_names(weights)
        dropped[POINT_COUNTS] = [key for key in named if key.endswith(transformers.POINT_COUNTS)]
        renamed = _renamed(transformers.detector(named), named, without=dropped[POINT_COUNTS])
        ours = transformers.join_projections(renamed)
        num_joined = (len(renamed) - len(ours)) * 3 // 2
        num_made = num_joined // 3
    elif source == 'dab_detr':
        named, dropped[REPEATED] = dab_detr.file_names(weights)
        ours = dab_detr.split_anchors(_renamed(dab_detr.DETECTOR, named))
    else:
        ours = weights
    return ours, {reason: keys for reason, keys in dropped.items() if keys}, num_joined, num_made


def _has_keys_of(source: str, weights: dict[str, Tensor]) -> bool:
    if source == 'mmdet':
        return any(key.startswith('bbox_head.') for key in weights)
    if source == 'rtdetrv4' and not any(key.startswith(dfine.PROJECTOR) for key in weights):
        return False  # it is DEIM's
    try:
        _converted(weights, source)
    except InputError:
        return False
    return True


def _renamed(names: PrefixMap, weights: Mapping[str, Tensor], without: Iterable[str] = ()) -> dict[str, Tensor]:
    passed_over = set(without)
    return {names.to_ours(key): value for key, value in weights.items() if key not in passed_over}


def convert_back(
    state_dict: Mapping[str, Any],
    target: str,
    *,
    num_points: Sequence[int] | int | None = None,
    input_size: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """Our weights under the names of ``target``, one of :data:`TARGETS`; whole, for a strict load.

    Args:
        state_dict: see :func:`unwrap`.
        num_points: sampling points a head of each level, finest first, or one number for all.
        input_size: height and width in px. Files of the authors' projects note it and ``num_points``; None: as the
            authors' configs for COCO have them.

    Raises:
        InputError: an unknown target, no weights, or a key that the target has no name for.
    """
    if target not in TARGETS:
        raise InputError(f'cannot write for {target!r}; choose one of {", ".join(TARGETS)}')
    weights = unwrap(state_dict)
    if target == 'mmdet':
        return weights
    without = left_out(weights, target)
    weights = {key: value for key, value in weights.items() if key not in without}
    if target == 'transformers':
        return transformers.their_names(weights)
    try:
        theirs = _named_by(target, weights)
    except InputError as error:
        others = [name for name in AUTHORS if name != target and _has_names_for(name, weights)]
        if not others:
            raise
        raise InputError(f'{error}; give --to {" or ".join(others)}, which has names for all') from error
    theirs = (deimv2 if target == 'deimv2' else dfine).with_repeated(theirs)
    return {**theirs, **decoder_buffers(theirs, target, num_points, input_size)}


def _named_by(target: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = _names_of(target, weights)
    return {names.to_theirs(key): value for key, value in weights.items()}


def _has_names_for(target: str, weights: Mapping[str, Tensor]) -> bool:
    try:
        _named_by(target, weights)
    except InputError:
        return False
    return True


def left_out(weights: Iterable[str], target: str) -> list[str]:
    """The keys of ours that :func:`convert_back` does not write: those of training alone, where only we have them."""
    return [] if target in ('mmdet', 'rtdetrv4') else [key for key in weights if is_of_training_alone(key)]


def _names_of(project: str, weights: Iterable[str]) -> PrefixMap:
    """The authors' names; DEIM's weights, theirs or ours, are told by what they hold."""
    refines = any('lqe_layers' in key or 'quality_heads' in key for key in weights)
    if project == 'rtdetrv4':
        return dfine.DETECTOR_V4
    if project == 'dfine' or (project == 'deim' and refines):
        return dfine.DETECTOR
    if project == 'deimv2':
        return deimv2.detector(weights)
    if project == 'ecdet':
        return ecdet.DETECTOR
    return rtdetr.DETECTOR if project == 'rtdetr' else rtdetr.DETECTOR_V2

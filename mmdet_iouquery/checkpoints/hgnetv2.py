"""Names of HGNetv2 elsewhere beside ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .prefix_map import PrefixMap

_MOST_STAGES, _MOST_BLOCKS, _MOST_LAYERS = 4, 6, 6


class Style(NamedTuple):
    """What a project calls the pieces; the others have the same names everywhere."""

    stem: str
    stages: str
    conv: str
    norm: str


AUTHORS = Style('stem.', 'stages.', 'conv.', 'bn.')
"""Of D-FINE, DEIM and timm."""
TRANSFORMERS = Style('embedder.', 'encoder.stages.', 'convolution.', 'normalization.')

CLASSIFIER = 'head.'
"""Prefix of keys of timm's classifier, which a detector has not."""


def backbone(theirs: str, ours: str, style: Style = AUTHORS) -> Iterator[tuple[str, str]]:
    """Pairs for a :class:`PrefixMap`.

    Args:
        theirs, ours: what stands before a backbone's keys, e.g. ``backbone.``.
        style: whose names they are.
    """
    for number in ('1', '2a', '2b', '3', '4'):
        yield from _conv(f'{theirs}{style.stem}stem{number}.', f'{ours}stem.conv{number}.', style)
    for stage in range(_MOST_STAGES):
        their_stage, our_stage = f'{theirs}{style.stages}{stage}.', f'{ours}stages.{stage}.'
        yield from _conv(f'{their_stage}downsample.', f'{our_stage}downsample.', style)
        for i in range(_MOST_BLOCKS):
            yield from _block(f'{their_stage}blocks.{i}.', f'{our_stage}blocks.{i}.', style)


def _block(theirs: str, ours: str, style: Style) -> Iterator[tuple[str, str]]:
    for i in range(_MOST_LAYERS):
        yield from _conv(f'{theirs}layers.{i}.', f'{ours}layers.{i}.', style)
        for conv in range(2):  # of a light convolution
            yield from _conv(f'{theirs}layers.{i}.conv{conv + 1}.', f'{ours}layers.{i}.{conv}.', style)
    for i in range(2):
        yield from _conv(f'{theirs}aggregation.{i}.', f'{ours}aggregation.{i}.', style)


def _conv(theirs: str, ours: str, style: Style) -> Iterator[tuple[str, str]]:
    yield f'{theirs}{style.conv}', f'{ours}conv.'
    yield f'{theirs}{style.norm}', f'{ours}norm.'
    yield f'{theirs}lab.', f'{ours}affine.'


BACKBONE = PrefixMap(backbone('', ''), "D-FINE's, DEIM's or timm's HGNetv2")

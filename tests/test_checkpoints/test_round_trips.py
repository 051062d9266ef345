"""Weights of every shipped config go to the names of others and come back: none is lost, and none is made up."""

from __future__ import annotations

import functools
import hashlib
import json

import pytest
import torch
from helpers import DATA, shipped_config
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_iouquery.checkpoints import convert_back
from mmdet_iouquery.checkpoints.convert import convert_accounted, left_out
from mmdet_iouquery.config_files import config_names
from mmdet_iouquery.errors import InputError

TARGETS = {
    'rtdetr': ('rtdetr', 'transformers'),
    'rtdetrv2': ('rtdetrv2', 'transformers'),
    'dfine': ('dfine', 'transformers'),
    'deim': ('deim',),
    'deimv2': ('deimv2',),
    'ecdet': ('ecdet',),
    'rtdetrv4': ('rtdetrv4',),
}
"""By the folder of the configs, whose names its models have."""
CONFIGS = [name for name in config_names() if name.partition('/')[0] in TARGETS]
OF_OURS_ALONE = {'dab-decoder': TARGETS['rtdetr'], 'rms-swiglu-decoder': ('transformers',)}
"""Parts that the others have no names for."""
CASES = [(name, target) for name in CONFIGS for target in TARGETS[name.partition('/')[0]]]
REFUSED = [
    (name, target)
    for name, target in CASES
    if any(f'_{part}' in name and target in targets for part, targets in OF_OURS_ALONE.items())
]
AUTHORS_NAMES: dict[str, str] = json.loads((DATA / 'authors_names.json').read_text())
"""By config, a checksum of names and shapes in the state dict of the authors' model; see ``tests/data/README.md``."""


@functools.cache
def like(config: str) -> dict[str, Tensor]:
    """The weights' shapes and types; they hold nothing."""
    with torch.device('meta'):
        return MODELS.build(shipped_config(config).model).state_dict()


def numbered_weights(config: str) -> dict[str, Tensor]:
    """Weights of which every row has a number of its own, repeated along the row without memory for it."""
    weights, start = {}, 0
    for key, x in like(config).items():
        rows = len(x) if x.dim() else 1
        numbers = torch.arange(start, start + rows).to(x.dtype)
        weights[key] = numbers.reshape(-1, *[1] * (x.dim() - 1)).expand(x.shape) if x.dim() else numbers[0]
        start += rows
    assert start < 2**24, 'single precision holds each number'
    return weights


@pytest.mark.parametrize(('config', 'target'), [case for case in CASES if case not in REFUSED])
def test_every_weight_comes_back(config: str, target: str) -> None:
    ours = numbered_weights(config)
    for key in left_out(ours, target):
        del ours[key]
    theirs = convert_back(ours, target)
    account = convert_accounted(theirs, target)
    assert account.weights.keys() == ours.keys()
    for key, x in account.weights.items():
        assert x.shape == ours[key].shape and torch.equal(x, ours[key]), key
    num_dropped = sum(map(len, account.dropped.values()))
    assert len(theirs) == len(ours) - account.num_made + account.num_joined + num_dropped
    again = convert_back(account.weights, target)
    assert {key: x.shape for key, x in again.items()} == {key: x.shape for key, x in theirs.items()}


@pytest.mark.parametrize('config', AUTHORS_NAMES)
def test_names_and_shapes_are_the_authors(config: str) -> None:
    """But for counters of norms, which norms of theirs that are frozen lack and pass over."""
    theirs = convert_back(numbered_weights(config), TARGETS[config.partition('/')[0]][0])
    weights = [key for key in sorted(theirs) if not key.endswith('num_batches_tracked')]
    lines = ''.join(f'{key} {tuple(theirs[key].shape)}\n' for key in weights)
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == AUTHORS_NAMES[config]


@pytest.mark.parametrize(('config', 'target'), REFUSED)
def test_what_others_have_no_names_for_is_refused(config: str, target: str) -> None:
    with pytest.raises(InputError, match=r"^unknown key 'bbox_head\.decoder\."):
        convert_back(numbered_weights(config), target)

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mmdet_iouquery.checkpoints import convert, convert_back, unwrap
from mmdet_iouquery.checkpoints.convert import FIXED_SIZE, POINT_COUNTS, convert_accounted
from mmdet_iouquery.errors import InputError

NAMES = ['rtdetr_r18_320x320', 'rtdetr_r50_256x320', 'v2_r18-pts_256x256']
DATA = Path(__file__).resolve().parents[1] / 'data'

WeightsOf = Callable[[str], dict[str, Tensor]]


POINTS = [f'decoder.decoder.layers.{i}.cross_attn.num_points_scale' for i in range(3)]
TABLES = ['decoder.anchors', 'decoder.valid_mask']
"""Constants of version 2; its golden keys name the former."""


def source_of(name: str) -> str:
    return 'rtdetrv2' if name.startswith('v2_') else 'rtdetr'


def without_constants(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key not in (*POINTS, *TABLES)}


@pytest.mark.parametrize('name', NAMES)
def test_the_round_trip_is_bit_equal(name: str, golden_weights: WeightsOf) -> None:
    theirs = golden_weights(name)
    ours = convert(theirs, source_of(name))
    back, theirs = map(without_constants, (convert_back(ours, source_of(name)), theirs))
    assert len(ours) == len(theirs) and list(back) == list(theirs)
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize('name', NAMES)
def test_every_parameter_is_accounted_for_and_the_outputs_are_the_references(
    name: str,
    golden_weights: WeightsOf,
    golden_detector: Callable[..., Any],
    formula: Any,
    difference: Callable[..., float],
) -> None:
    model = golden_detector(name)
    ours = convert(golden_weights(name), source_of(name))
    result = model.load_state_dict(ours, strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    # what the file lacks are counters of batch norms that the authors freeze
    lacking = set(model.state_dict()) - set(ours)
    assert all(key.endswith('num_batches_tracked') for key in lacking)
    assert bool(lacking) == ('r50' in name)

    golden = np.load(DATA / f'{name}.npz')
    height, width = map(int, name.rsplit('_', 1)[1].split('x'))
    with torch.no_grad():
        answer = model(torch.as_tensor(formula.image(name, (2, 3, height, width))), mode='tensor')
    assert difference(answer, (torch.as_tensor(golden['logits']), torch.as_tensor(golden['boxes']))) < 1e-4


@pytest.mark.parametrize('name', [NAMES[0], NAMES[2]])
def test_a_model_goes_back_whole(name: str, golden_weights: WeightsOf, golden_detector: Callable[..., Any]) -> None:
    theirs = golden_weights(name)
    model = golden_detector(name)
    model.load_state_dict(convert(theirs, source_of(name)), strict=True)
    back, theirs = map(without_constants, (convert_back(model.state_dict(), source_of(name)), theirs))
    assert set(back) == set(theirs)
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize('name', NAMES[:2])
def test_a_bare_backbone_has_the_detectors_names_without_their_prefix(name: str, golden_weights: WeightsOf) -> None:
    theirs, start = golden_weights(name), 'backbone.'
    bare = convert({k[len(start) :]: v for k, v in theirs.items() if k.startswith(start)}, 'rtdetr_backbone')
    whole = {k[len(start) :]: v for k, v in convert(theirs, 'rtdetr').items() if k.startswith(start)}
    assert bare.keys() == whole.keys()
    assert all(torch.equal(bare[key], whole[key]) for key in bare)


def test_tables_for_a_fixed_size_are_dropped_and_named(golden_weights: WeightsOf) -> None:
    theirs = golden_weights(NAMES[0])
    constants = ['decoder.anchors', 'decoder.valid_mask', 'encoder.pos_embed2']
    account = convert_accounted({**theirs, **{key: torch.zeros(1) for key in constants}}, 'rtdetr')
    assert account.dropped == {FIXED_SIZE: constants}
    assert account.num_read == len(theirs) + 3 and len(account.weights) == len(theirs)


def test_constants_of_version_2_are_dropped_and_named(golden_weights: WeightsOf) -> None:
    theirs = golden_weights(NAMES[2])
    account = convert_accounted({**theirs, **{key: torch.zeros(1) for key in TABLES}}, 'rtdetrv2')
    assert account.dropped == {FIXED_SIZE: TABLES, POINT_COUNTS: POINTS}
    assert account.num_read == len(theirs) + 2 and len(account.weights) == len(theirs) - 3


def test_constants_of_version_2_are_written_as_asked_for(golden_weights: WeightsOf) -> None:
    """Version 1 keeps none in a file."""
    ours = convert(golden_weights(NAMES[2]), 'rtdetrv2')
    back = convert_back(ours, 'rtdetrv2', num_points=[3, 2, 1], input_size=(64, 96))
    assert all(torch.equal(back[key], 1 / torch.tensor([3.0, 3, 3, 2, 2, 1])) for key in POINTS)
    assert [back[key].shape for key in TABLES] == [(1, 8 * 12 + 4 * 6 + 2 * 3, last) for last in (4, 1)]
    assert not {*POINTS, *TABLES} & convert_back(ours, 'rtdetr').keys()


@pytest.mark.parametrize(('name', 'source'), [(NAMES[0], 'rtdetrv2'), (NAMES[2], 'rtdetr')])
def test_the_other_version_is_refused(name: str, source: str, golden_weights: WeightsOf) -> None:
    first = r"'(encoder\.input_proj|decoder\.enc_output)\.0"
    with pytest.raises(InputError, match=f'unknown key {first}.*is this the right'):
        convert(golden_weights(name), source)


def test_from_one_version_to_the_other(golden_weights: WeightsOf) -> None:
    """They differ in names alone."""
    theirs = without_constants(golden_weights(NAMES[2]))
    first = convert_back(convert(theirs, 'rtdetrv2'), 'rtdetr')
    assert set(first) == set(golden_weights('rtdetr_r18_320x320'))
    back = convert_back(convert(first, 'rtdetr'), 'rtdetrv2')
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


def test_an_unknown_key_or_source_is_named(golden_weights: WeightsOf) -> None:
    theirs = {**golden_weights(NAMES[0]), 'decoder.mask_head.weight': torch.zeros(1)}
    with pytest.raises(InputError, match=r"'decoder.mask_head.weight'"):
        convert(theirs, 'rtdetr')
    with pytest.raises(InputError, match=r"unknown key 'fc.weight'"):
        convert({'fc.weight': torch.zeros(1)}, 'rtdetr_backbone')
    with pytest.raises(InputError, match=r"unknown source 'paddle'.*rtdetr, rtdetrv2, .*transformers"):
        convert(theirs, 'paddle')
    with pytest.raises(InputError, match="cannot write for 'paddle'"):
        convert_back(theirs, 'paddle')
    with pytest.raises(InputError, match=r"'bbox_head.mask_head.weight'"):
        convert_back({'bbox_head.mask_head.weight': torch.zeros(1)}, 'rtdetr')


A, B = torch.zeros(2), torch.ones(2)


@pytest.mark.parametrize(
    ('content', 'wrapper', 'left'),
    [
        ({'w': A}, '', []),
        ({'w': A, 'epoch': 3}, '', ['epoch']),
        ({'state_dict': {'w': A}, 'meta': {}}, 'state_dict', ['meta']),
        ({'model': {'w': B}, 'ema': {'module': {'w': A}, 'updates': 7}}, 'ema.module', ['model', 'ema.updates']),
        ({'ema': {'w': A}, 'model': {'w': B}}, 'ema', ['model']),
        ({'ema': {'module': {'module.w': A}}}, 'ema.module', []),
        ({'ema': None, 'model': {'w': A}}, 'model', ['ema']),
        ({'ema': {'updates': 7}, 'model': {'w': A}}, 'model', ['ema']),
        ({'model': {'module.w': A}}, 'model', []),
        ({'module.w': A}, '', []),
        ({'module._orig_mod.w': A}, '', []),
        ({'state_dict': {'w': A}, 'ema_state_dict': {'module.w': B}}, 'state_dict', ['ema_state_dict']),
    ],
)
def test_wrappers_come_off_and_the_average_is_preferred(content: dict, wrapper: str, left: list[str]) -> None:
    account = convert_accounted(content, 'mmdet')
    assert list(account.weights) == ['w'] and torch.equal(account.weights['w'], A)
    assert (account.wrapper, account.left) == (wrapper, left)
    assert unwrap(content).keys() == {'w'}


@pytest.mark.parametrize('content', [{}, {'epoch': 3}, {'model': {}}, {'model': {'state_dict': {'epoch': 3}}}])
def test_a_checkpoint_without_weights_is_refused(content: dict) -> None:
    with pytest.raises(InputError, match='no weights in the checkpoint'):
        unwrap(content)


def test_part_of_the_keys_below_module_is_left_as_it_is() -> None:
    assert unwrap({'module.w': A, 'w': B}).keys() == {'module.w', 'w'}

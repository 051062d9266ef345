"""Which modules a side of the leave-one-out benchmark has. No time is measured."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tolerances import about, within
from torch import nn

from mmdet_iouquery.apps.benchmark import leave_one_out as subject
from mmdet_iouquery.apps.benchmark.leave_one_out import (
    PLAIN,
    WAYS,
    WAYS_OF_PREDICTION,
    leave_one_out,
    leave_one_out_of_prediction,
    undone,
)
from mmdet_iouquery.apps.benchmark.training import OURS
from mmdet_iouquery.compat import packs_weights
from mmdet_iouquery.cpu import accelerate_training
from mmdet_iouquery.cpu.convolution import WinogradConv2d
from mmdet_iouquery.cpu.norms import FusedConvNormAct, FusedRepVGGBlock
from mmdet_iouquery.cpu.prediction import NeighboursMaxPool2d, PackedConv2d, PackedLinear
from mmdet_iouquery.cpu.products import ProductAttention, ProductConv2d, ProductLinear
from mmdet_iouquery.deploy import prepare_for_inference
from mmdet_iouquery.models.necks.fusion import RepVGGBlock

KINDS = (WinogradConv2d, FusedConvNormAct, FusedRepVGGBlock, ProductLinear, ProductConv2d, ProductAttention)
SETTINGS = dict(model_name='R18', batch=1, side=64, objects=2, rounds=1)


def kinds_of(model: nn.Module) -> Counter[type]:
    return Counter(type(module) for module in model.modules() if type(module) in KINDS)


@pytest.mark.parametrize('way', WAYS)
def test_a_side_lacks_one_way_and_has_all_others(way: str) -> None:
    whole, left_out = kinds_of(subject._model('R18')), kinds_of(subject._model('R18', *WAYS[way]))
    assert all(whole[kind] for kind in KINDS)
    assert left_out == Counter({kind: count for kind, count in whole.items() if kind not in WAYS[way]})


def test_what_is_left_out_is_a_plain_module() -> None:
    model = subject._model('R18', FusedRepVGGBlock)
    assert sum(type(module) is RepVGGBlock for module in model.modules()) == 12  # three in each of four fusions


@pytest.mark.skipif(torch.cuda.is_available(), reason='measures ways of computing for CPUs')
@pytest.mark.parametrize('half', [False, True])
def test_a_row_for_each_way_against_all_of_them(half: bool) -> None:
    rows = leave_one_out(None, half=half, **SETTINGS)
    names = [row['side'] for row in rows]
    assert names[0] == OURS and rows[0]['ratio'] == 1.0 and names[-1] == PLAIN
    assert len(names) == 2 + len(WAYS)
    assert all(row['median_s'] > 0 and row['ratio'] == row['median_s'] / rows[0]['median_s'] for row in rows)


def test_all_sides_have_the_same_loss() -> None:
    """The ways compute the same."""
    batch = subject.Batch(1, 64, 2, torch.device('cpu'))
    torch.manual_seed(0)
    model = subject.detector('R18').train()
    state, losses = {name: x.clone() for name, x in model.state_dict().items()}, []
    for accelerated in (False, True):
        model.load_state_dict(state)
        if accelerated:
            accelerate_training(model)
        torch.manual_seed(1)
        losses.append(float(subject.our_loss(model, batch)))
    assert losses[1] == about(losses[0], 'sum')


@pytest.mark.skipif(not packs_weights(torch.float32), reason='torch offers no packed layers here')
@pytest.mark.parametrize('way', WAYS_OF_PREDICTION)
def test_a_prediction_without_one_way_is_the_same(way: str) -> None:
    """And has none of the layers that are that way, and all others."""
    kinds = {
        'minimal filtering': (WinogradConv2d,),
        'packed layers': (PackedConv2d, PackedLinear),
        "attention by oneDNN's products": (ProductAttention,),
        'a max pool by maxima': (NeighboursMaxPool2d,),
    }
    all_kinds = {kind for several in kinds.values() for kind in several}
    torch.manual_seed(0)
    model = prepare_for_inference(subject.detector('D-FINE-S').eval())  # it has all kinds
    plain = undone(model, WAYS_OF_PREDICTION[way])
    assert all_kinds <= {type(layer) for layer in model.modules()}
    assert all_kinds - {*kinds[way]} == all_kinds & {type(layer) for layer in plain.modules()}
    images = subject.Batch(1, 96, 0, torch.device('cpu')).images
    with torch.inference_mode():
        # all tokens are chosen, in an order that rounding decides
        expected, actual = (detector(images, mode='tensor')[0].sort(dim=1).values for detector in (model, plain))
    torch.testing.assert_close(actual, expected, **within())


@pytest.mark.skipif(torch.cuda.is_available(), reason='measures ways of computing for CPUs')
def test_a_row_of_prediction_for_each_way() -> None:
    rows = leave_one_out_of_prediction(model_name='DEIMv2-Atto', batch=1, side=64, rounds=1)
    names = [row['side'] for row in rows]
    assert names == [OURS, *(f'{OURS}, without {way}' for way in WAYS_OF_PREDICTION), PLAIN]
    assert all(row['median_s'] > 0 and row['ratio'] == row['median_s'] / rows[0]['median_s'] for row in rows)

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.checkpoints import select_classes
from mmdet_iouquery.errors import InputError

OLD = ['cat', 'dog', 'Traffic Light']
NEW = ['bird', 'traffic light', 'CAT', 'fish']
WIDTH = 16
HEADS = ['bbox_head.query_selector.cls_head', 'bbox_head.decoder.cls_heads.0', 'bbox_head.decoder.cls_heads.1']
EMBEDDING = 'bbox_head.denoising.label_embedding.weight'


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    heads = {f'{head}.{kind}': shape for head in HEADS for kind, shape in (('weight', (3, WIDTH)), ('bias', (3,)))}
    others = {'bbox_head.decoder.bbox_heads.0.layers.2.weight': (4, WIDTH), 'backbone.stem.0.weight': (3, 3)}
    return {key: torch.randn(shape) for key, shape in {**heads, EMBEDDING: (4, WIDTH), **others}.items()}


def test_kept_rows_are_bit_equal_and_the_others_start_as_in_a_new_model(weights: dict[str, Tensor]) -> None:
    before = {key: value.clone() for key, value in weights.items()}
    selected, kept, fresh = select_classes(weights, OLD, NEW)
    assert (kept, fresh) == (['traffic light', 'CAT'], ['bird', 'fish'])
    for head in HEADS:
        weight, bias = selected[f'{head}.weight'], selected[f'{head}.bias']
        assert weight.shape == (4, WIDTH) and bias.shape == (4,)
        assert torch.equal(weight[[1, 2]], weights[f'{head}.weight'][[2, 0]])
        assert torch.equal(bias[[1, 2]], weights[f'{head}.bias'][[2, 0]])
        assert weight[[0, 3]].abs().max() <= 1 / math.sqrt(WIDTH)
        assert torch.allclose(bias[[0, 3]].sigmoid(), torch.tensor(0.01), **within('unit'))
        assert not torch.equal(weight[0], weight[3])
        assert not (weight[0] == weights[f'{head}.weight']).all(dim=1).any()
    embedding = selected[EMBEDDING]
    assert embedding.shape == (5, WIDTH) and not embedding[-1].any()
    assert torch.equal(embedding[[1, 2]], weights[EMBEDDING][[2, 0]])
    assert not torch.equal(selected[f'{HEADS[0]}.weight'][0], selected[f'{HEADS[1]}.weight'][0])
    # the rest, and what was given, are untouched
    assert selected.keys() == weights.keys()
    for key in weights:
        assert torch.equal(weights[key], before[key])
        assert 'cls_head' in key or key == EMBEDDING or torch.equal(selected[key], weights[key])


def test_a_selector_that_tells_objects_only_keeps_its_head(weights: dict[str, Tensor]) -> None:
    for kind, shape in (('weight', (1, WIDTH)), ('bias', (1,))):
        weights[f'{HEADS[0]}.{kind}'] = torch.randn(shape)
    selected, kept, _ = select_classes(weights, OLD, NEW)
    assert kept == ['traffic light', 'CAT']
    for kind in ('weight', 'bias'):
        assert torch.equal(selected[f'{HEADS[0]}.{kind}'], weights[f'{HEADS[0]}.{kind}'])
        assert len(selected[f'{HEADS[1]}.{kind}']) == len(selected[f'{HEADS[2]}.{kind}']) == 4


def test_fresh_rows_are_distributed_as_the_models(weights: dict[str, Tensor]) -> None:
    selected, kept, _ = select_classes(weights, OLD, [f'class {i}' for i in range(2000)])
    assert not kept
    weight, embedding = selected[f'{HEADS[0]}.weight'], selected[EMBEDDING][:-1]
    assert abs(weight.std().item() * math.sqrt(3 * WIDTH) - 1) < 0.02 and abs(weight.mean().item()) < 0.01
    assert abs(embedding.std().item() - 1) < 0.02 and abs(embedding.mean().item()) < 0.02


def test_the_seed_decides(weights: dict[str, Tensor]) -> None:
    torch.manual_seed(1)
    first = select_classes(weights, OLD, NEW)[0]
    torch.manual_seed(2)
    again, other = select_classes(weights, OLD, NEW)[0], select_classes(weights, OLD, NEW, generator_seed=1)[0]
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first[EMBEDDING], other[EMBEDDING])


def test_the_same_classes_change_nothing_but_the_padding(weights: dict[str, Tensor]) -> None:
    weights[EMBEDDING][-1] = 0
    selected, kept, fresh = select_classes(weights, OLD, OLD)
    assert (kept, fresh) == (OLD, [])
    assert all(torch.equal(selected[key], weights[key]) for key in weights)


def test_half_precision_stays(weights: dict[str, Tensor]) -> None:
    selected = select_classes({key: value.half() for key, value in weights.items()}, OLD, NEW)[0]
    assert {value.dtype for value in selected.values()} == {torch.float16}


@pytest.mark.parametrize(
    ('source', 'target', 'message'),
    [
        (OLD, ['cat', 'Cat'], "target classes name 'cat' more than once"),
        (['cat', 'dog', 'CAT'], NEW, "source classes name 'cat' more than once"),
        (OLD, [], 'list of target classes is empty'),
        (OLD, ['cat', ''], 'empty name'),
        (['cat', 'dog'], NEW, r'2 source classes were named, but .*cls_heads\.0\.bias has 3 rows'),
    ],
)
def test_wrong_names_are_refused(weights: dict[str, Tensor], source: list, target: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_classes(weights, source, target)


def test_wrong_embedding_and_missing_heads_are_refused(weights: dict[str, Tensor]) -> None:
    weights[EMBEDDING] = torch.zeros(3, WIDTH)
    with pytest.raises(InputError, match=r'3 source classes were named, but .*label_embedding\.weight has 3 rows'):
        select_classes(weights, OLD, NEW)
    with pytest.raises(InputError, match='no class head'):
        select_classes({'stem.0.weight': torch.zeros(1)}, OLD, NEW)


def test_it_loads_into_a_model_of_the_new_classes(build_detector: Callable[..., nn.Module]) -> None:
    old, new = (build_detector(18, num_layers=1, num_classes=count) for count in (3, 4))
    selected = select_classes(old.state_dict(), OLD, NEW)[0]
    result = new.load_state_dict(selected, strict=True)
    assert not result.missing_keys and not result.unexpected_keys

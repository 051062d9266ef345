"""HGNetv2: the authors' numbers, what is frozen, what is refused."""

from __future__ import annotations

import json
from typing import Any

import golden_formula as formula
import pytest
import torch
from helpers import DATA, assert_golden_maps, golden, learning
from mmdet.registry import MODELS
from mmengine.config import Config
from tolerances import about
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_iouquery.checkpoints import convert
from mmdet_iouquery.config_files import config_names, config_path
from mmdet_iouquery.errors import InputError

GOLDENS = ('B0:lab', 'B2:lab', 'B4', 'Atto:lab')
SIZES = ((128, 160), (97, 131))


def build(arch: str, **kwargs: Any) -> nn.Module:
    return MODELS.build({'type': 'HGNetv2', 'arch': arch, **kwargs})


@pytest.fixture(scope='module', params=GOLDENS)
def case(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """Golden name and backbone, with the authors' weights, in evaluation mode."""
    arch, _, affine = request.param.partition(':')
    keys = json.loads((DATA / 'hgnetv2.keys.json').read_text())[request.param]
    weights = {key: torch.as_tensor(formula.weight(key, tuple(shape))) for key, shape in keys.items()}
    model = build(arch, learnable_affine=affine == 'lab')
    model.load_state_dict(convert(weights, 'hgnetv2_backbone'), strict=True)
    return request.param, model.eval()


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_maps_and_gradients_are_the_authors(case: tuple[str, nn.Module], size: tuple[int, int]) -> None:
    name, model = case
    size_text = '{}x{}'.format(*size)
    images = torch.as_tensor(formula.image(f'hgnetv2_{size_text}', (2, 3, *size))).requires_grad_()
    maps = model(images)
    reference = {key.split('/')[-1]: value for key, value in golden('hgnetv2').items() if f'{name}/{size_text}/' in key}
    assert [list(x.shape) for x in maps] == [reference[key].tolist() for key in reference if key.endswith('shape')]
    assert_golden_maps(maps, reference, 'stage')
    sum(x.mean() for x in maps).backward()
    assert images.grad.norm().item() == about(reference['grad_input_norm'].item(), 'reference sum')


@pytest.mark.parametrize(
    ('arch', 'affine', 'count'),
    [
        ('Atto', True, 230_344),
        ('Femto', True, 389_832),
        ('Pico', True, 749_202),
        ('B0', True, 1_850_396),
        ('B0', False, 1_850_336),
        ('B1', True, 2_197_004),
        ('B2', True, 6_026_626),
        ('B3', False, 10_048_816),
        ('B4', False, 13_553_376),
        ('B5', False, 33_325_760),
    ],
)
def test_number_of_parameters(arch: str, affine: bool, count: int) -> None:
    """Of the authors' models of the same names."""
    with torch.device('meta'):
        model = build(arch, learnable_affine=affine)
    assert sum(p.numel() for p in model.parameters()) == count


def test_maps_lie_channels_last_in_the_weights_precision() -> None:
    model = build('Atto', learnable_affine=True).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        single = model(images.double())
        half = model.to(torch.bfloat16)(images)
    assert {x.dtype for x in single} == {torch.float32} and {x.dtype for x in half} == {torch.bfloat16}
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (*single, *half))


def test_an_affine_keeps_the_precision_that_autocast_chose() -> None:
    model = build('Atto', learnable_affine=True)
    with torch.autocast('cpu', torch.bfloat16):
        maps = model(torch.rand(2, 3, 64, 64))
    assert {x.dtype for x in maps} == {torch.bfloat16}
    sum(x.float().mean() for x in maps).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_what_is_frozen_does_not_learn() -> None:
    stages = [f'stages.{i}' for i in range(4)]
    for frozen_stages, expected in ((-1, {'stem', *stages}), (0, {*stages}), (2, {*stages[2:]}), (4, set())):
        assert learning(build('B0', frozen_stages=frozen_stages).train()) == expected
    # a stage behind the last map is not run: a distributed training would wait for its gradients
    model = build('B0', out_indices=(1, 2)).train()
    assert not any(parameter.requires_grad for parameter in model.stages[3].parameters())
    sum(x.mean() for x in model(torch.rand(2, 3, 64, 64))).backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())


def test_norms_as_d_fine_freezes_them_in_its_large_models() -> None:
    model = build('B4', frozen_stages=0, norm_cfg={'type': 'BN', 'requires_grad': False}, norm_eval=True).train()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    assert norms and not any(norm.training or norm.weight.requires_grad for norm in norms)
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learned == {name for name, p in model.named_parameters() if p.dim() == 4 and name.startswith('stages')}


@pytest.mark.parametrize('norm_eval', [True, False])
@pytest.mark.parametrize('norm', ['BN', 'IN'])
def test_norm_eval_keeps_running_statistics_of_every_kind_of_norm(norm: str, norm_eval: bool) -> None:
    model = build('B0', norm_cfg={'type': norm, 'track_running_stats': True}, norm_eval=norm_eval).train()
    before = {key: x.clone() for key, x in model.named_buffers() if key.endswith('running_mean')}
    model(torch.rand(2, 3, 64, 64))
    assert before and {torch.equal(model.get_buffer(key), x) for key, x in before.items()} == {norm_eval}


def test_initial_weights_are_pytorchs_own() -> None:
    torch.manual_seed(3)
    model = build('B0', learnable_affine=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    # uniform within 1 / sqrt(fan in)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert module.weight.abs().max() <= bound
    weight = model.stages[3].blocks[0].aggregation[1].conv.weight
    assert weight.std().item() == pytest.approx((512 * 3) ** -0.5, rel=0.01)  # of hundreds of thousands of draws


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'arch': 'B7'}, r"^arch must be one of \['Atto', .*'B6'\], got 'B7'$"),
        ({'arch': ['B0']}, r"^arch must be one of \['Atto', .*'B6'\], got \['B0'\]$"),
        ({'learnable_affine': 1}, '^learnable_affine must be True or False, got 1$'),
        ({'norm_eval': 'no'}, "^norm_eval must be True or False, got 'no'$"),
        ({'norm_cfg': 'BN'}, '^norm_cfg must be a dict'),
        ({'frozen_stages': 5}, r'^HGNetv2 B0 has 4 stages: frozen_stages must be at most 4, got 5,'),
        ({'frozen_stages': -2}, '^frozen_stages must be at least -1'),
        ({'out_indices': (1, 4)}, r'out_indices ascend from 0 to at most 3, got \(1, 4\)$'),
        ({'out_indices': (2, 1)}, r'out_indices ascend from 0 to at most 3, got \(2, 1\)$'),
        ({'out_indices': ()}, r'^out_indices must be a list of whole numbers, got \(\)$'),
        ({'arch': 'Pico', 'out_indices': (1, 2, 3)}, r'^HGNetv2 Pico has 3 stages: .* at most 2, got \(1, 2, 3\)$'),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**{'arch': 'B0', **settings})


@pytest.mark.parametrize('name', [name for name in config_names() if 'hgnetv2' in name])
def test_configs_name_weights_that_fit(name: str) -> None:
    """The authors' files of B0 to B3 have affines, those of B4 to B6 none; what is smaller takes its share of B0's."""
    cfg = Config.fromfile(config_path(name))
    backbone = cfg.model.backbone
    weights = backbone.get('init_cfg')
    if weights is None:  # those of a whole detector, or none: from scratch
        assert cfg.load_from is not None or name.startswith(('quickstart/', 'ablations/'))
        return
    assert (weights.type, weights.source) == ('ConvertedPretrained', 'hgnetv2_backbone')
    small = backbone.arch in ('Atto', 'Femto', 'Pico')
    assert weights.checkpoint.endswith(f'/PPHGNetV2_{"B0" if small else backbone.arch}_stage1.pth')
    assert weights.get('partial', False) == small
    assert backbone.get('learnable_affine', False) == (small or backbone.arch in ('B0', 'B1', 'B2', 'B3'))

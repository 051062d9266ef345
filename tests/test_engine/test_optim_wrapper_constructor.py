"""Parameter groups."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers import build_detector, shipped_config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdet_iouquery.config_files import config_names
from mmdet_iouquery.config_options import merge_options, read_options
from mmdet_iouquery.engine import NoDecayOptimWrapperConstructor
from mmdet_iouquery.models.layers import LearnableAffine, RMSNorm


def model() -> nn.Module:
    parts = nn.ModuleDict(
        {
            'backbone': nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)),
            'head': nn.ModuleDict(
                {'attn': nn.MultiheadAttention(4, 2), 'norm': nn.LayerNorm(4), 'fc': nn.Linear(4, 2)}
            ),
            'affine': LearnableAffine(),
        }
    )
    parts['backbone'][2].weight.requires_grad = False
    return parts


def build(paramwise_cfg: dict | None) -> dict[str, tuple[float, float]]:
    """Rate and decay by parameter name."""
    net = model()
    cfg = {
        'type': 'OptimWrapper',
        'constructor': 'NoDecayOptimWrapperConstructor',
        'optimizer': {'type': 'AdamW', 'lr': 1.0, 'weight_decay': 0.5},
    }
    if paramwise_cfg:
        cfg['paramwise_cfg'] = paramwise_cfg
    before = repr(cfg)
    optimizer = build_optim_wrapper(net, cfg).optimizer
    assert repr(cfg) == before
    names = {id(p): n for n, p in net.named_parameters()}
    return {names[id(p)]: (g['lr'], g['weight_decay']) for g in optimizer.param_groups for p in g['params']}


@pytest.mark.parametrize(
    'norm',
    [nn.BatchNorm1d, nn.SyncBatchNorm, partial(nn.InstanceNorm3d, affine=True), partial(nn.GroupNorm, 1), RMSNorm],
)
def test_no_kind_of_norm_decays(norm: Callable[[int], nn.Module]) -> None:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), norm(4))
    decayed, kept = NoDecayOptimWrapperConstructor({}).groups(net, 1.0)
    assert [*map(id, decayed['params'])] == [id(net[0].weight)] and 'weight_decay' not in decayed
    assert {*map(id, kept['params'])} == {*map(id, net[1].parameters())} and kept['weight_decay'] == 0


def test_rates_and_decay() -> None:
    assert build({'lr_mult': {'backbone': 0.1, 'backbone.0': 0.2}}) == {
        'backbone.0.weight': (0.2, 0.5),
        'backbone.0.bias': (0.2, 0),
        'backbone.1.weight': (0.1, 0),
        'backbone.1.bias': (0.1, 0),
        'backbone.2.bias': (0.1, 0),
        'head.attn.in_proj_weight': (1.0, 0.5),
        'head.attn.in_proj_bias': (1.0, 0),
        'head.attn.out_proj.weight': (1.0, 0.5),
        'head.attn.out_proj.bias': (1.0, 0),
        'head.norm.weight': (1.0, 0),
        'head.norm.bias': (1.0, 0),
        'head.fc.weight': (1.0, 0.5),
        'head.fc.bias': (1.0, 0),
        'affine.scale': (1.0, 0),
        'affine.bias': (1.0, 0),
    }


def test_without_factors_one_rate() -> None:
    assert {rate for rate, _ in build(None).values()} == {1.0}


def test_exceptions_by_name() -> None:
    """The first rule that fits counts, and decides what it names alone."""
    rules = [
        {'pattern': r'\.1\.', 'lr_mult': 3.0},
        {'pattern': 'norm', 'decay': True, 'lr_mult': 0.0},
        {'pattern': 'bias$', 'decay': True},
        {'pattern': 'attn|norm', 'decay': False, 'lr_mult': 7.0},
    ]
    assert build({'lr_mult': {'backbone': 0.1}, 'rules': rules}) == {
        'backbone.0.weight': (0.1, 0.5),
        'backbone.0.bias': (0.1, 0.5),
        'backbone.1.weight': (3.0, 0),
        'backbone.1.bias': (3.0, 0),
        'backbone.2.bias': (0.1, 0.5),
        'head.attn.in_proj_weight': (7.0, 0),
        'head.attn.in_proj_bias': (1.0, 0.5),
        'head.attn.out_proj.weight': (7.0, 0),
        'head.attn.out_proj.bias': (1.0, 0.5),
        'head.norm.weight': (0.0, 0.5),
        'head.norm.bias': (0.0, 0.5),
        'head.fc.weight': (1.0, 0.5),
        'head.fc.bias': (1.0, 0.5),
        'affine.scale': (1.0, 0),
        'affine.bias': (1.0, 0.5),
    }


def test_the_authors_rules_stand_behind_those_of_the_user() -> None:
    cfg = {
        'rules': [{'pattern': 'fc', 'lr_mult': 2.0}],
        'authors_rules': [{'pattern': 'fc|norm', 'decay': True, 'lr_mult': 3.0}],
    }
    assert build(cfg) == build({'rules': cfg['rules']})
    assert build({**cfg, 'authors_groups': True}) == build({'rules': cfg['rules'] + cfg['authors_rules']}) != build(cfg)


def test_without_the_flag_a_pattern_of_the_authors_may_fit_nothing() -> None:
    cfg = {'authors_rules': [{'pattern': 'neck', 'decay': True}]}
    assert build(cfg) == build(None)
    with pytest.raises(ValueError, match="authors_rules: 'neck' is found in no name of the parameters"):
        build({**cfg, 'authors_groups': True})


RESNET_NORMS = r'^backbone\.(stem\.[147]|.*bn|layer1.*downsample\.1|layer[234].*downsample\.2)'
AUTHORS = {
    # D-FINE 4a1f73a, dfine_hgnetv2_*_coco.yml: factor on the rate and whether it decays, to the numbers of parameters
    # and of their elements; the backbone's norms of L and X are frozen
    'D-FINE-N': (
        'dfine/dfine_hgnetv2-n_8xb16-160e_coco.py',
        {(0.5, True): (186, 1850396), (1.0, False): (151, 16015), (1.0, True): (91, 1916280)},
    ),
    'D-FINE-S': (
        'dfine/dfine_hgnetv2-s_8xb4-132e_coco.py',
        {(0.5, True): (186, 1850396), (1.0, False): (191, 38135), (1.0, True): (111, 8433344)},
    ),
    'D-FINE-M': (
        'dfine/dfine_hgnetv2-m_8xb4-132e_coco.py',
        {(0.1, True): (262, 6026626), (1.0, False): (242, 52780), (1.0, True): (140, 13510656)},
    ),
    'D-FINE-L': (
        'dfine/dfine_hgnetv2-l_8xb4-80e_coco.py',
        {(0.05, True): (75, 13482752), (1.0, False): (220, 39936), (1.0, True): (274, 17696534)},
    ),
    'D-FINE-X': (
        'dfine/dfine_hgnetv2-x_8xb4-80e_coco.py',
        {(0.01, True): (125, 33206400), (1.0, False): (226, 56576), (1.0, True): (277, 29333142)},
    ),
    # DEIM 09d35d5, deim_hgnetv2_*_coco.yml and deim_r*vd*_coco.yml; RT-DETR 068dfde, rtdetrv2_r*vd*_coco.yml
    'DEIM-N': (
        'deim/deim-dfine_hgnetv2-n_8xb16-160e_coco.py',
        {(0.5, True): (186, 1850396), (1.0, False): (151, 16015), (1.0, True): (91, 1916280)},
    ),
    'DEIM-S': (
        'deim/deim-dfine_hgnetv2-s_8xb4-132e_coco.py',
        {(0.5, True): (102, 1838124), (1.0, False): (222, 34288), (1.0, True): (164, 8449463)},
    ),
    'DEIM-M': (
        'deim/deim-dfine_hgnetv2-m_8xb4-102e_coco.py',
        {(0.1, True): (142, 5999930), (1.0, False): (296, 59464), (1.0, True): (206, 13530668)},
    ),
    'DEIM-L': (
        'deim/deim-dfine_hgnetv2-l_8xb4-58e_coco.py',
        {(0.05, True): (240, 13553376), (1.0, False): (220, 39936), (1.0, True): (274, 17696534)},
    ),
    'DEIM-X': (
        'deim/deim-dfine_hgnetv2-x_8xb4-58e_coco.py',
        {(0.01, True): (390, 33325760), (1.0, False): (226, 56576), (1.0, True): (277, 29333142)},
    ),
    'DEIM-RT-DETRv2-R18': (
        'deim/deim-rtdetrv2_r18vd_8xb2-120e_coco.py',
        {(1.0, False): (162, 31360), (1.0, True): (166, 20152080)},
    ),
    'DEIM-RT-DETRv2-R34': (
        'deim/deim-rtdetrv2_r34vd_8xb2-120e_coco.py',
        {(0.5, True): (39, 21290848), (1.0, False): (200, 40320), (1.0, True): (167, 10109476)},
    ),
    'DEIM-RT-DETRv2-R50-m': (
        'deim/deim-rtdetrv2_r50vd_m_8xb2-60e_coco.py',
        {(0.1, True): (55, 23474016), (1.0, False): (226, 74752), (1.0, True): (143, 9650096)},
    ),
    'DEIM-RT-DETRv2-R50': (
        'deim/deim-rtdetrv2_r50vd_8xb2-60e_coco.py',
        {(0.1, True): (55, 23474016), (1.0, False): (236, 85504), (1.0, True): (211, 19384076)},
    ),
    'DEIM-RT-DETRv2-R101': (
        'deim/deim-rtdetrv2_r101vd_8xb2-60e_coco.py',
        {(0.01, True): (106, 42413920), (1.0, False): (338, 148224), (1.0, True): (211, 34098572)},
    ),
    'RT-DETRv2-R18': (
        'rtdetrv2/rtdetrv2_r18vd_8xb2-120e_coco.py',
        {(1.0, False): (162, 31360), (1.0, True): (164, 20153104)},
    ),
    'RT-DETRv2-R34': (
        'rtdetrv2/rtdetrv2_r34vd_8xb2-120e_coco.py',
        {
            (0.5, True): (39, 21290848),
            (0.5, False): (78, 17280),
            (1.0, True): (106, 10091776),
            (1.0, False): (181, 41764),
        },
    ),
    'RT-DETRv2-R50-m': (
        'rtdetrv2/rtdetrv2_r50vd_m_8xb2-84e_coco.py',
        {(0.1, True): (52, 23445504), (1.0, False): (134, 26112), (1.0, True): (213, 13093644)},
    ),
    'RT-DETRv2-R50': (
        'rtdetrv2/rtdetrv2_r50vd_8xb2-72e_coco.py',
        {(0.1, True): (52, 23445504), (1.0, False): (126, 32256), (1.0, True): (209, 19385100)},
    ),
    'RT-DETRv2-R101': (
        'rtdetrv2/rtdetrv2_r101vd_8xb2-72e_coco.py',
        {(0.01, True): (103, 42385408), (1.0, False): (126, 42752), (1.0, True): (209, 34099596)},
    ),
    # DEIMv2 0fff8d4, deimv2_hgnetv2_*_coco.yml
    'DEIMv2-Atto': (
        'deimv2/deimv2_hgnetv2-atto_8xb16-500e_coco.py',
        {(0.5, True): (115, 230344), (1.0, False): (69, 2160), (1.0, True): (117, 276479)},
    ),
    'DEIMv2-Femto': (
        'deimv2/deimv2_hgnetv2-femto_8xb16-500e_coco.py',
        {
            (0.5, True): (115, 389832),
            (1.0, False): (111, 7647),
            (1.0, True): (75, 586464),
        },
    ),
    'DEIMv2-Pico': (
        'deimv2/deimv2_hgnetv2-pico_8xb16-500e_coco.py',
        {(0.5, True): (149, 749202), (1.0, False): (111, 8823), (1.0, True): (75, 781512)},
    ),
    'DEIMv2-N': (
        'deimv2/deimv2_hgnetv2-n_8xb4-160e_coco.py',
        {(0.5, True): (186, 1850396), (1.0, False): (132, 14479), (1.0, True): (87, 1735544)},
    ),
    # deimv2_dinov3_*_coco.yml; their bins have two more, and L's ViT a token that is not trained
    'DEIMv2-S': (
        'deimv2/deimv2_vit-s_8xb4-132e_coco.py',
        {
            (0.05, True): (50, 5456064),
            (0.05, False): (97, 30144),
            (1.0, True): (138, 4266272),
            (1.0, False): (194, 27356),
        },
    ),
    'DEIMv2-M': (
        'deimv2/deimv2_vit-m_8xb4-102e_coco.py',
        {
            (0.05, True): (50, 9634048),
            (0.05, False): (97, 40192),
            (1.0, True): (154, 8641944),
            (1.0, False): (226, 41564),
        },
    ),
    'DEIMv2-L': (
        'deimv2/deimv2_vit-l_8xb4-68e_coco.py',
        {
            (0.025, True): (75, 21539712),
            (0.025, False): (99, 61056),
            (1.0, True): (154, 10902560),
            (1.0, False): (226, 47500),
        },
    ),
    'DEIMv2-X': (
        'deimv2/deimv2_vit-x_8xb4-58e_coco.py',
        {
            (0.02, True): (75, 28617600),
            (0.02, False): (99, 79488),
            (1.0, True): (196, 22439424),
            (1.0, False): (290, 74838),
        },
    ),
    # EdgeCrafter 706d037, ecdet_*.yml
    'ECDet-S': (
        'ecdet/ecdet_ecvit-s_8xb4-74e_coco.py',
        {
            (0.05, True): (53, 5526984),
            (0.05, False): (103, 30480),
            (1.0, True): (122, 4296768),
            (1.0, False): (204, 29868),
        },
    ),
    'ECDet-M': (
        'ecdet/ecdet_ecvit-m_8xb4-62e_coco.py',
        {
            (0.05, True): (53, 9825376),
            (0.05, False): (103, 40640),
            (1.0, True): (122, 9520128),
            (1.0, False): (204, 45356),
        },
    ),
    'ECDet-L': (
        'ecdet/ecdet_ecvit-l_8xb4-50e_coco.py',
        {
            (0.01, True): (53, 22106256),
            (0.01, False): (103, 60960),
            (1.0, True): (140, 10748928),
            (1.0, False): (240, 49964),
        },
    ),
    'ECDet-X': (
        'ecdet/ecdet_ecvit-x_8xb4-50e_coco.py',
        {
            (0.005, True): (53, 29184144),
            (0.005, False): (103, 70176),
            (1.0, True): (140, 20620288),
            (1.0, False): (240, 67372),
        },
    ),
    # RT-DETRv4 df44122, rtv4_hgnetv2_*_coco.yml
    'RT-DETRv4-S': (
        'rtdetrv4/rtdetrv4_hgnetv2-s_8xb4-132e_coco.py',
        {
            (0.5, True): (102, 1838124),
            (1.0, False): (222, 34288),
            (1.0, True): (166, 8646839),
        },
    ),
    'RT-DETRv4-M': (
        'rtdetrv4/rtdetrv4_hgnetv2-m_8xb4-102e_coco.py',
        {
            (0.1, True): (142, 5999930),
            (1.0, False): (296, 59464),
            (1.0, True): (208, 13728044),
        },
    ),
    'RT-DETRv4-L': (
        'rtdetrv4/rtdetrv4_hgnetv2-l_8xb4-58e_coco.py',
        {
            (0.05, True): (240, 13553376),
            (1.0, False): (220, 39936),
            (1.0, True): (276, 17893910),
        },
    ),
    'RT-DETRv4-X': (
        'rtdetrv4/rtdetrv4_hgnetv2-x_8xb4-58e_coco.py',
        {
            (0.01, True): (390, 33325760),
            (1.0, False): (226, 56576),
            (1.0, True): (279, 29628822),
        },
    ),
}
FAMILIES = {config.split('/')[0] for config, _ in AUTHORS.values()}


@pytest.mark.parametrize('name', AUTHORS)
def test_the_authors_groups(name: str) -> None:
    """By the flag; without it norms, affines and biases never decay, and a whole backbone or ViT has its rate."""
    config, expected = AUTHORS[name]
    cfg = shipped_config(config)
    paramwise = copy.deepcopy(cfg.optim_wrapper.paramwise_cfg)
    merge_options(cfg, read_options({'optim_wrapper.paramwise_cfg.authors_groups': 'True'}))
    with torch.device('meta'):
        detector = build_detector(config)
    assert counts(detector, cfg.optim_wrapper.paramwise_cfg) == expected
    own = counts(detector, paramwise)
    trained = {n: p for n, p in detector.named_parameters() if p.requires_grad}
    assert sum(number for (factor, _), (number, _) in own.items() if factor < 1) == sum(
        n.startswith(tuple(part for part, factor in paramwise.lr_mult.items() if factor < 1)) for n in trained
    )
    assert sum(size for (_, decays), (_, size) in own.items() if decays) == sum(
        p.numel() for n, p in trained.items() if not re.search(rf'norm|affine|bias$|{RESNET_NORMS}', n)
    )


@pytest.mark.parametrize('name', [n for n in config_names() if n.split('/')[0] in FAMILIES])
def test_the_flag_is_all_that_a_config_needs(name: str) -> None:
    """Configs of the same size, such as those of Objects365, have the rules of that size."""
    paramwise = shipped_config(name).optim_wrapper.paramwise_cfg
    size = next(config for config, _ in AUTHORS.values() if of_size(config) == of_size(name))
    assert paramwise.authors_rules == shipped_config(size).optim_wrapper.paramwise_cfg.authors_rules
    assert 'rules' not in paramwise and 'authors_groups' not in paramwise


def of_size(name: str) -> str:
    """What a config's name says of its model: without its batches, epochs, data, and how it samples."""
    return re.sub('(_dsp|_objects365)?_8xb.*', '', name)


def counts(detector: nn.Module, paramwise_cfg: dict) -> dict[tuple[float, bool], tuple[int, int]]:
    groups = NoDecayOptimWrapperConstructor({'optimizer': {}}, paramwise_cfg).groups(detector, 1.0)
    return {
        (group['lr'], 'weight_decay' not in group): (len(group['params']), sum(p.numel() for p in group['params']))
        for group in groups
    }


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        ({'custom_keys': {}}, 'knows lr_mult, rules, authors_rules and authors_groups alone'),
        ({'lr_mult': {'neck': 1}}, "names 'neck'"),
        ({'rules': [{'pattern': 'neck', 'decay': True}]}, "'neck' is found in no name"),
        ({'rules': [{'pattern': '(', 'decay': True}]}, "'\\(' is no regular expression"),
        ({'rules': [{'lr_mult': 2}]}, 'rules must be dicts of pattern, lr_mult and decay'),
        ({'rules': [{'pattern': 'head', 'decay_mult': 0}]}, 'rules must be dicts of pattern, lr_mult and decay'),
        ({'rules': [{'pattern': 'head', 'decay': 0.0}]}, 'decay must be True or False'),
        ({'rules': [{'pattern': 'head', 'lr_mult': -1}]}, 'lr_mult must be a number of at least 0'),
        ({'authors_rules': [{'pattern': '('}]}, "authors_rules: '\\(' is no regular expression"),
        ({'authors_rules': ['head']}, 'authors_rules must be dicts of pattern, lr_mult and decay'),
        ({'authors_groups': True}, 'the config has no authors_rules that give the groups; add them'),
        ({'authors_groups': 1, 'authors_rules': []}, 'authors_groups must be True or False'),
    ],
)
def test_wrong_settings(cfg: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(cfg)

"""Parameter groups."""

from __future__ import annotations

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdet_iouquery.models.layers import LearnableAffine


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


@pytest.mark.parametrize(
    ('cfg', 'message'), [({'custom_keys': {}}, 'knows lr_mult'), ({'lr_mult': {'neck': 1}}, "names 'neck'")]
)
def test_wrong_settings(cfg: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(cfg)

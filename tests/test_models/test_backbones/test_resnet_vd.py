"""ResNet-vd."""

from __future__ import annotations

import pytest
import torch
from helpers import golden_weights
from mmdet.registry import MODELS
from torch import nn

from mmdet_iouquery.errors import InputError


def build(depth: int, **kwargs: object) -> nn.Module:
    return MODELS.build({'type': 'ResNetVd', 'depth': depth, 'out_indices': (1, 2, 3), **kwargs})


@pytest.mark.parametrize(('depth', 'channels'), [(18, (128, 256, 512)), (34, (128, 256, 512)), (50, (512, 1024, 2048))])
def test_maps(depth: int, channels: tuple[int, ...]) -> None:
    maps = build(depth)(torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(c, 64 // s, 96 // s) for c, s in zip(channels, (8, 16, 32))]


@pytest.mark.parametrize(('depth', 'name'), [(18, 'rtdetr_r18_320x320'), (50, 'rtdetr_r50_256x320')])
def test_as_many_convolution_weights_as_the_authors(depth: int, name: str) -> None:
    theirs = [v for k, v in golden_weights(name).items() if k.startswith('backbone.') and v.dim() == 4]
    ours = [p for p in build(depth).parameters() if p.dim() == 4]
    assert len(ours) == len(theirs) and sum(map(torch.numel, ours)) == sum(map(torch.numel, theirs))


@pytest.mark.parametrize('depth', [18, 50])
def test_only_strided_shortcuts_pool(depth: int) -> None:
    model = build(depth)
    for stage in (1, 2, 3, 4):
        blocks = getattr(model, f'layer{stage}')
        kinds = [type(m).__name__ for m in blocks[0].downsample]
        assert kinds == [*['AvgPool2d'] * (stage > 1), 'Conv2d', 'BatchNorm2d']
        assert all(block.downsample is None for block in list(blocks)[1:])


def test_frozen_as_the_authors_freeze_r50() -> None:
    model = build(50, frozen_stages=0, norm_cfg={'type': 'BN', 'requires_grad': False}, norm_eval=True)
    model.train()
    assert not any(p.requires_grad for p in model.stem.parameters())
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training or m.weight.requires_grad for m in norms)
    assert all(m.weight.requires_grad for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and 'stem' not in n)


def test_init_weights_leaves_pytorchs_own() -> None:
    torch.manual_seed(3)
    model = build(18)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize('depth', [19, '18', None])
def test_a_depth_that_there_is_not_is_refused_with_those_that_there_are(depth: object) -> None:
    with pytest.raises(InputError, match=rf'^depth must be one of \[18, 34, 50, 101, 152\], got {depth!r}$'):
        MODELS.build(dict(type='ResNetVd', depth=depth))

"""HGNetv2: the authors' numbers, what is frozen, what is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import golden_formula as formula
import pytest
import torch
from helpers import DATA, golden
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_iouquery.checkpoints import convert
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


def excerpt(x: Tensor) -> Tensor:
    """The golden's selection of a map: every (C // 8)-th channel, first, middle and last row and column."""
    height, width = x.shape[-2:]
    channels = x[:, :: x.shape[1] // 8][:, :8]
    return channels[:, :, [0, height // 2, height - 1]][..., [0, width // 2, width - 1]]


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_maps_and_gradients_are_the_authors(case: tuple[str, nn.Module], size: tuple[int, int]) -> None:
    name, model = case
    place = '{}x{}'.format(*size)
    images = torch.as_tensor(formula.image(f'hgnetv2_{place}', (2, 3, *size))).requires_grad_()
    maps = model(images)
    reference = {key.split('/')[-1]: value for key, value in golden('hgnetv2').items() if f'{name}/{place}/' in key}
    assert len(maps) == len([key for key in reference if key.endswith('shape')])
    for stage, x in enumerate(maps):
        assert list(x.shape) == reference[f'stage_{stage}_shape'].tolist()
        expected = torch.as_tensor(reference[f'stage_{stage}_slice'])
        torch.testing.assert_close(excerpt(x), expected, rtol=1e-4, atol=1e-5)
        expected = torch.as_tensor(reference[f'stage_{stage}_mean_std'])
        torch.testing.assert_close(torch.stack([x.mean(), x.std()]), expected, rtol=1e-4, atol=1e-5)
    sum(x.mean() for x in maps).backward()
    assert images.grad.norm().item() == pytest.approx(reference['grad_input_norm'].item(), rel=1e-4)


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

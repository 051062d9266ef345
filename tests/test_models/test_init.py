"""Initial weights: the same distribution as the authors', parameter by parameter."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import DATA, build_detector
from torch import nn

from mmdet_iouquery.checkpoints.rtdetr import DETECTOR


@pytest.fixture(scope='module')
def parameters() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    model = build_detector('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py')
    model.init_weights()
    return dict(model.named_parameters())


def test_mean_spread_and_zeros_equal_the_authors(parameters: dict[str, nn.Parameter]) -> None:
    table = json.loads((DATA / 'rtdetr_r18_init.json').read_text())
    assert {DETECTOR.to_ours(key) for key in table} == set(parameters)
    for key, (mean, std, zeros) in table.items():
        ours = parameters[DETECTOR.to_ours(key)].detach().double()
        count = ours.numel()
        # six standard errors of a sample of this size against one four times as large; the table has 6 decimals
        slack = 6 * std * (1.25 / count) ** 0.5 + 1e-6
        assert abs(ours.mean().item() - mean) <= slack, f'{key}: mean {ours.mean()} against {mean}'
        assert abs(ours.std(unbiased=False).item() - std) <= slack, f'{key}: std {ours.std()} against {std}'
        # a uniform draw may be exactly zero now and then, one in millions
        assert abs((ours == 0).double().mean().item() - zeros) < 1e-4, f'{key}: share of zeros'

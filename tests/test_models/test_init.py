"""Initial weights: the same distribution as the authors', parameter by parameter."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import DATA, build_detector

from mmdet_iouquery.checkpoints import convert

CASES = [
    ('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', 'rtdetr', 'rtdetr_r18'),
    ('rtdetrv2/rtdetrv2_r18vd_8xb2-120e_coco.py', 'rtdetrv2', 'v2_r18'),
    ('rtdetrv2/rtdetrv2_r50vd_m_8xb2-84e_coco.py', 'rtdetrv2', 'v2_r50vd_m'),
    ('dfine/dfine_hgnetv2-n_8xb16-160e_coco.py', 'dfine', 'dfine_n'),
    ('dfine/dfine_hgnetv2-s_8xb4-132e_coco.py', 'dfine', 'dfine_s'),
    ('dfine/dfine_hgnetv2-x_8xb4-80e_coco.py', 'dfine', 'dfine_x'),
    ('deim/deim-dfine_hgnetv2-n_8xb16-160e_coco.py', 'deim', 'dfine_n'),
    ('deim/deim-rtdetrv2_r18vd_8xb2-120e_coco.py', 'deim', 'deimrt_r18'),
    ('deimv2/deimv2_hgnetv2-atto_8xb16-500e_coco.py', 'deimv2', 'deimv2_atto'),
    ('deimv2/deimv2_hgnetv2-n_8xb4-160e_coco.py', 'deimv2', 'deimv2_n'),
    ('deimv2/deimv2_vit-s_8xb4-132e_coco.py', 'deimv2', 'deimv2_s'),
    ('deimv2/deimv2_vit-l_8xb4-68e_coco.py', 'deimv2', 'deimv2_l'),
    ('ecdet/ecdet_ecvit-s_8xb4-74e_coco.py', 'ecdet', 'ecdet_s'),
    ('ecdet/ecdet_ecvit-l_8xb4-50e_coco.py', 'ecdet', 'ecdet_l'),
]
"""Config, whose names the table has (a source of the converter), and the table, ``tests/data/*_init.json``."""


@pytest.mark.parametrize(('config', 'source', 'table'), CASES, ids=[case[0] for case in CASES])
def test_mean_spread_and_zeros_equal_the_authors(config: str, source: str, table: str) -> None:
    torch.manual_seed(0)
    model = build_detector(config)
    model.init_weights()
    # what the authors' code learns, and ours: constants are in neither
    parameters = {name: x.detach().double() for name, x in model.named_parameters() if x.requires_grad}
    statistics = json.loads((DATA / f'{table}_init.json').read_text())
    # by number: heads of N's layers start as copies of one, and equal rows would be taken for one head of all layers
    numbered = convert({key: torch.tensor(i) for i, key in enumerate(statistics)}, source)
    rows = [*statistics.values()]
    assert set(numbered) == set(parameters)
    for name, ours in parameters.items():
        mean, std, zeros = rows[int(numbered[name])]
        # six standard errors of a sample of this size against one four times as large; the table has 6 decimals
        slack = 6 * std * (1.25 / ours.numel()) ** 0.5 + 1e-6
        assert abs(ours.mean().item() - mean) <= slack, f'{name}: mean {ours.mean()} against {mean}'
        assert abs(ours.std(unbiased=False).item() - std) <= slack, f'{name}: std {ours.std()} against {std}'
        # a uniform draw may be exactly zero now and then, one in millions
        assert abs((ours == 0).double().mean().item() - zeros) < 1e-4, f'{name}: share of zeros'

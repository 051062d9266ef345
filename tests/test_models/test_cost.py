"""Parameters and floating-point operations against the papers' tables."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import build_detector

from mmdet_iouquery import prepare_for_inference
from mmdet_iouquery.apps.cost import count_flops, count_parameters
from mmdet_iouquery.deploy.merge import MERGED
from mmdet_iouquery.models.necks import HybridEncoder

# Zhao et al. 2024, table 2, and the authors' list of models for the depths that it leaves out
MODELS = {
    'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py': (20, 60),
    'rtdetr/rtdetr_r34vd_8xb2-72e_coco.py': (31, 92),
    'rtdetr/rtdetr_r50vd_m_8xb2-72e_coco.py': (36, 100),
    'rtdetr/rtdetr_r50vd_8xb2-72e_coco.py': (42, 136),
    'rtdetr/rtdetr_r101vd_8xb2-72e_coco.py': (76, 259),
    'rtdetrv2/rtdetrv2_r18vd_8xb2-120e_coco.py': (20, 60),
    'rtdetrv2/rtdetrv2_r34vd_8xb2-120e_coco.py': (31, 92),
    'rtdetrv2/rtdetrv2_r50vd_m_8xb2-84e_coco.py': (36, 100),
    'rtdetrv2/rtdetrv2_r50vd_8xb2-72e_coco.py': (42, 136),
    'rtdetrv2/rtdetrv2_r101vd_8xb2-72e_coco.py': (76, 259),
}

OF_UNCHOSEN = 2 * (8400 - 300) * (2 * 256**2 + 4 * 256) / 1e9
"""GFLOPs of the boxes of tokens that are not chosen. The authors' code computes them and ours does not: by our counter
theirs has 61.5 (R18), 137.8 (R50) and 100.6 (R50-m), 2.1 more than ours each time; the table's R50-m has them too."""


@pytest.mark.parametrize('name', MODELS)
def test_parameters_and_operations_are_the_papers(name: str) -> None:
    """At 640 x 640. The table has whole millions, cut off, and whole GFLOPs."""
    parameters, gflops = MODELS[name]
    with torch.device('meta'):  # nothing is computed
        model = build_detector(name).eval()
        images = torch.empty(1, 3, 640, 640)
    assert math.floor(count_parameters(model) / 1e6) == parameters
    counted = count_flops(lambda: model.bbox_head.forward(model.extract_feat(images))) / 1e9
    if '_r50vd_m_' in name:
        counted += OF_UNCHOSEN
    # ours are convolutions and matrix products alone; norms, activations and sampling add up to half a percent
    assert abs(counted - gflops) <= 0.01 * gflops + (0 if '_r50vd_m_' in name else 0.5)


# Peng et al. 2024, table 1, and the authors' list of models for N
D_FINE = {
    'n_8xb16-160e': (4, 7),
    's_8xb4-132e': (10, 25),
    'm_8xb4-132e': (19, 57),
    'l_8xb4-80e': (31, 91),
    'x_8xb4-80e': (62, 202),
}


@pytest.mark.parametrize('name', D_FINE)
def test_d_fine_prepared_costs_what_its_authors_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 640 x 640. Their models are counted with folded norms and merged branches; rounded to millions.

    Their encoder convolves maps after it has enlarged them; ours, prepared, before, which is not counted here.
    """
    monkeypatch.delitem(MERGED, HybridEncoder)
    parameters, gflops = D_FINE[name]
    model = prepare_for_inference(build_detector(f'dfine/dfine_hgnetv2-{name}_coco.py').eval()).to('meta')
    images = torch.empty(1, 3, 640, 640, device='meta')
    assert round(count_parameters(model) / 1e6) == parameters
    counted = count_flops(lambda: model.bbox_head.forward(model.extract_feat(images))) / 1e9
    assert abs(counted - gflops) <= 0.01 * gflops + 0.5

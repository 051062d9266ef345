"""Three optimizer steps from equal weights, in training mode throughout, give the authors' losses."""

from __future__ import annotations

import json

import golden_formula as formula
import numpy as np
import pytest
import torch
from helpers import DATA, build_detector, golden_weights, sample, shipped_config
from mmengine.optim import build_optim_wrapper
from test_golden import CASES, their_name

from mmdet_iouquery import accelerate_training
from mmdet_iouquery.checkpoints import convert
from mmdet_iouquery.core import box_cxcywh_to_xyxy

STEPS = {
    'rtdetr_r18': ('rtdetr_r18_320x320', 160, False),
    'dfine_n': ('dfine_n_320x320', 256, True),
    'deim_n': ('deim_n_320x320', 256, True),
}
"""By the name of ``tests/data/*_three_steps.json``: name of the weights, side of images in px, and whether the authors'
groups of parameters, by which norms and biases of the backbone decay, are asked for."""


@pytest.mark.parametrize('accelerate', [False, True], ids=['plain', 'accelerated'])
@pytest.mark.parametrize('name', STEPS)
def test_losses_of_three_steps(name: str, accelerate: bool) -> None:
    """With the shipped optimizer: its groups, rates, decays and clipping; batch norms by the batch; no denoising.

    In double precision: AdamW moves weights of almost no gradient by the sign of it, so in single precision two orders
    of summing up are a thousandth apart after three steps. What remains is that boxes and anchors are made in single.
    """
    weights, side, authors_groups = STEPS[name]
    case = CASES[weights]
    model = build_detector(case.config, data_preprocessor__batch_augments=None)
    model.load_state_dict(convert(golden_weights(weights), case.source), strict=True)
    model.double()
    model.bbox_head.denoising = None  # its draws would have to be shared
    if accelerate:
        accelerate_training(model)
    settings = shipped_config(case.config).optim_wrapper
    settings.paramwise_cfg.authors_groups = authors_groups
    optim_wrapper = build_optim_wrapper(model.train(), settings)
    num_layers = model.bbox_head.decoder.num_layers
    for step, expected in enumerate(json.loads((DATA / f'{name}_three_steps.json').read_text())):
        images = torch.from_numpy(formula.image(f'three_steps_{step}', (3, 3, side, side))).double()
        samples = [
            sample(box_cxcywh_to_xyxy(torch.from_numpy(boxes)) * side, np.asarray(labels), (side, side))
            for labels, boxes in formula.targets(f'three_steps_{step}', 3, [3, 0, 7], 80)
        ]
        losses = model.loss(images, samples)
        actual = {their_name(key, case, num_layers).removeprefix('loss/'): loss.item() for key, loss in losses.items()}
        # doubles, but for anchors and boxes
        assert actual == pytest.approx(expected, rel=1e-6), f'step {step + 1}'
        optim_wrapper.update_params(sum(losses.values()))

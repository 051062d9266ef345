"""Gradients of a batch are those of its images, one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers import FAMILY, RTDETRV2, random_batch, small_detector, with_fixed_norms
from torch import Tensor, nn

from mmdet_iouquery import accelerate_training
from mmdet_iouquery.models.layers import ConvNormAct, as_tokens

SIZE = (64, 96)
DENSE = {'bbox_head__decoder': {'type': 'DABDecoder', 'num_layers': 2}}
LEARNED = {'bbox_head__query_selector': {'type': 'LearnedAnchors'}}
# the union has other numbers of pairs, and distillation is weighed by the numbers of a batch
D_FINE = {
    **FAMILY['D-FINE'],
    'bbox_head__criterion__union_matching': False,
    'bbox_head__criterion__loss_ddf': None,
}


def gradients(model: nn.Module, images: Tensor, samples: list, weight: float = 1.0) -> dict[str, Tensor]:
    model.zero_grad()
    (weight * sum(model.loss(images, samples).values())).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize('accelerate', [False, True], ids=['plain', 'accelerated'])
@pytest.mark.parametrize('changes', [{}, DENSE, LEARNED, *RTDETRV2.values(), D_FINE, FAMILY['DEIM-RT-DETRv2']])
def test_batch_against_single_images(changes: dict[str, Any], accelerate: bool) -> None:
    """In double precision, batch norms frozen: losses are divided by 5 boxes together, by 4 and 1 alone."""
    model = small_detector(bbox_head__denoising=None, **changes)
    model.init_weights()
    with_fixed_norms(model.double().train())
    if accelerate:
        accelerate_training(model)
    images, samples = random_batch([4, 1], *SIZE)
    images = images.double()
    for sample in samples:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.double()
    both = gradients(model, images, copy.deepcopy(samples))
    first, second = (
        gradients(model, images[i : i + 1], copy.deepcopy(samples[i : i + 1]), weight)
        for i, weight in ((0, 0.8), (1, 0.2))
    )
    assert any(name.startswith('backbone.stem') for name in both)
    for name, gradient in both.items():
        assert (first[name] + second[name] - gradient).abs().max() <= 1e-6 * gradient.abs().max() + 1e-12, name


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('batch', [1, 2])
def test_tokens_of_a_normed_map(training: bool, batch: int) -> None:
    """Against the same sum written without tokens."""
    block = ConvNormAct(6, 8, 1, norm_cfg={'type': 'BN'}).double().train(training)
    x, weight = torch.rand(batch, 6, 3, 4).double(), torch.rand(batch, 12, 8).double()
    results = []
    for as_map in (False, True):
        block.zero_grad()
        leaf = x.clone().requires_grad_()
        if as_map:
            (block(leaf) * weight.mT.contiguous().view(batch, 8, 3, 4)).sum().backward()
        else:
            tokens = as_tokens(block(leaf))
            assert tokens.shape == (batch, 12, 8)
            (tokens * weight).sum().backward()
        results.append([leaf.grad, *(p.grad.clone() for p in block.parameters())])
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected)

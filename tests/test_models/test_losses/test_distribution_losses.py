"""D-FINE's two losses as registered modules; the formulas are tested in ``test_core/test_distribution.py``."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_iouquery.core import bin_values, distillation_divergence, edge_cross_entropy, edge_targets
from mmdet_iouquery.errors import InputError


def test_fine_grained_localization_loss() -> None:
    """Summed over the edges, each pair with its weight; no pairs: no loss, which can still be differentiated."""
    loss = MODELS.build({'type': 'FineGrainedLocalizationLoss', 'loss_weight': 0.5})
    corners, weight = torch.randn(6, 4, 33, requires_grad=True), torch.rand(6)
    targets = edge_targets(torch.rand(6, 4), torch.rand(6, 4), bin_values(32, 4), 4.0)
    edges = edge_cross_entropy(corners, targets)
    expected = 0.5 * weight * (edges[:, 0] + edges[:, 1] + edges[:, 2] + edges[:, 3])
    torch.testing.assert_close(loss(corners, targets, weight), expected)
    none = loss(corners[:0], type(targets)(*(x[:0] for x in targets)), weight[:0])
    assert none.shape == (0,)
    none.sum().backward()
    assert corners.grad.abs().max() == 0


def test_distribution_distillation_loss() -> None:
    loss = MODELS.build({'type': 'DistributionDistillationLoss', 'loss_weight': 3.0, 'temperature': 2.0})
    student, teacher, weight = torch.randn(2, 3, 5, 4, 33), torch.randn(3, 5, 4, 33), torch.rand(2, 3, 5)
    edges = distillation_divergence(student, teacher, 2.0)
    expected = 3 * weight * (edges[..., 0] + edges[..., 1] + edges[..., 2] + edges[..., 3])
    torch.testing.assert_close(loss(student, teacher, weight), expected)


@pytest.mark.parametrize('name', ['FineGrainedLocalizationLoss', 'DistributionDistillationLoss'])
def test_weights_are_those_of_d_fine(name: str) -> None:
    loss = MODELS.build({'type': name})
    assert loss.loss_weight == {'F': 0.15, 'D': 1.5}[name[0]]
    assert getattr(loss, 'temperature', 5.0) == 5.0
    with pytest.raises(InputError, match='loss_weight'):
        MODELS.build({'type': name, 'loss_weight': -1.0})


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match='temperature'):
        MODELS.build({'type': 'DistributionDistillationLoss', 'temperature': 0.0})

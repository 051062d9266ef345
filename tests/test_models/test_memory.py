"""Memory: what is kept for the gradient."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers import random_batch
from test_data_faults import DECODERS, still
from torch import Tensor, nn


def kept_and_gradients(model: nn.Module) -> tuple[int, dict[str, Tensor]]:
    """Bytes that the head keeps between forward and backward, each storage once, without weights; and the gradients."""
    images, samples = random_batch([3, 1], 64, 64)
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    model.zero_grad()
    maps = model.extract_feat(images)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = model.bbox_head.loss(maps, copy.deepcopy(samples))
    for parameter in model.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    kept = sum(storages.values())
    sum(losses.values()).backward()
    return kept, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('changes', DECODERS.values(), ids=DECODERS)
def test_recomputed_layers_keep_less_and_give_the_same_gradients(changes: dict[str, Any]) -> None:
    """Dropout included: what is computed again draws the same."""
    model = still({**changes, 'bbox_head__decoder__dropout': 0.2})
    torch.manual_seed(0)
    results = []
    for with_cp in (False, True):
        model.bbox_head.decoder.with_cp = with_cp
        torch.manual_seed(0)
        results.append(kept_and_gradients(model))
    (kept, expected), (kept_less, gradients) = results
    assert kept_less < 0.5 * kept
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)  # of sizes that differ a lot

"""Whole detectors under ``torch.jit.trace``: what FLOP counters, TensorBoard's graph and older exporters see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import FAMILY, RTDETRV2, build_detector, small_detector
from tolerances import within
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmdet_iouquery import accelerate_training, prepare_for_inference

pytestmark = pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')  # shapes are those of the trace


def accelerated(**changes: Any) -> nn.Module:
    model = small_detector(**changes).train()
    accelerate_training(model)
    return model


D_FINE = FAMILY['D-FINE']


DETECTORS: dict[str, Callable[[], nn.Module]] = {
    'for prediction': lambda: small_detector().eval(),
    'in training': lambda: small_detector().train(),
    'accelerated, in training': accelerated,
    'prepared': lambda: prepare_for_inference(small_detector()),
    'points per level': lambda: small_detector(**RTDETRV2['points per level']).eval(),
    'discrete sampling': lambda: small_detector(**RTDETRV2['discrete sampling']).eval(),
    'D-FINE, for prediction': lambda: small_detector(**D_FINE).eval(),
    'D-FINE, in training': lambda: small_detector(**D_FINE).train(),
    'D-FINE, accelerated, in training': lambda: accelerated(**D_FINE),
    'D-FINE, prepared': lambda: prepare_for_inference(small_detector(**D_FINE)),
    'dense DAB decoder': lambda: build_detector('rtdetr/rtdetr_r18vd_dab-decoder_8xb2-72e_coco.py').eval(),
}


class Outputs(nn.Module):
    """A detector whose outputs are a flat tuple of tensors."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector.requires_grad_(detector.training)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(leaf for leaf in tree_leaves(self.detector(images, mode='tensor')) if isinstance(leaf, Tensor))


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize('name', DETECTORS)
def test_a_trace_computes_the_same_of_another_image(name: str) -> None:
    model = Outputs(DETECTORS[name]())
    model.train(model.detector.training)
    images = torch.rand(2, 1, 3, 96, 64)
    traced = torch.jit.trace(model, (images[0],), check_trace=False)
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    assert {kind.split('::')[0] for kind in kinds} <= {'aten', 'prim'} and 'prim::PythonOp' not in kinds
    for ours, expected in zip(traced(images[1]), model(images[1])):
        # our gradients' forward passes and torch's round differently, convolution by convolution
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('changes', FAMILY.values(), ids=FAMILY)
def test_a_trace_of_one_image_takes_three(changes: dict[str, Any]) -> None:
    """No number of a batch is kept. In double precision, so that no choice among nearly equal scores can differ."""
    model = Outputs(small_detector(**changes).double().eval())
    images = torch.rand(3, 3, 64, 96).double()
    traced = torch.jit.trace(model, (images[:1],), check_trace=False)
    for ours, expected in zip(traced(images), model(images)):
        torch.testing.assert_close(ours, expected, **within(torch.float64))


def test_tables_made_in_a_trace_are_not_kept() -> None:
    """Sizes are tensors in there, which no later call would find again."""
    model = Outputs(small_detector().eval())
    images = torch.rand(1, 3, 96, 64)
    kept = [module for module in model.modules() if hasattr(module, '_tables')]
    torch.jit.trace(model, (images,), check_trace=False)
    assert kept and all(not module._tables._tables for module in kept)

"""Half precision: close to single precision, finite whatever the activations, in prediction and in training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers import FAMILY, random_batch, small_detector
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.core import FLOAT16_MAX, as_float, within_range
from mmdet_iouquery.models.layers import SelfAttention

HALVES = [torch.float16, torch.bfloat16]
PARTS: dict[str, dict[str, Any]] = {
    'RT-DETR': {},
    'dense DAB decoder': {'bbox_head__decoder': {'_delete_': True, 'type': 'DABDecoder', 'num_layers': 3}},
    'deformable DAB decoder': {
        'bbox_head__decoder': {
            '_delete_': True,
            'type': 'DABDecoder',
            'num_layers': 3,
            'cross_attention': 'deformable',
            'num_levels': 3,
        }
    },
    'score times IoU': {'bbox_head__query_selector__type': 'ScoreTimesIoUQuerySelector'},
    'learned anchors': {'bbox_head__query_selector': {'_delete_': True, 'type': 'LearnedAnchors', 'num_queries': 30}},
    **{name: FAMILY[name] for name in ('RT-DETRv2, points per level', 'D-FINE', 'DEIM-D-FINE', 'DEIMv2-N', 'DEIMv2-X')},
}
every_part = pytest.mark.parametrize('changes', PARTS.values(), ids=PARTS)
every_half = pytest.mark.parametrize('dtype', HALVES, ids=str)


def detector(changes: dict[str, Any]) -> nn.Module:
    model = small_detector(**changes)
    model.init_weights()
    return model.eval()


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Tensor]]:
    """The largest magnitude of every tensor that leaves a module below the backbone."""
    peaks: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda _, __, out: peaks.append(out.detach().float().abs().max()))
        for module in [*model.neck.modules(), *model.bbox_head.modules()]
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    yield peaks
    for handle in handles:
        handle.remove()


def blow_up(model: nn.Module, factor: float) -> None:
    """Multiply what lies between two norms: the weights of feed-forward layers and the embeddings' projections."""
    blown, linears = 0, ('linear1', 'linear2', 'w12', 'w3', 'out_proj', 'output_proj')
    for name, parameter in model.named_parameters():
        if name.endswith(tuple(f'{linear}.weight' for linear in linears)):
            parameter.data.mul_(factor)
            blown += 1
    assert blown >= 3 * 3 + 2


@every_half
@every_part
def test_prediction_is_close_to_single_precision(changes: dict[str, Any], dtype: torch.dtype) -> None:
    """Autocast and cast weights, before the choice of the best (random weights score too alike for that).

    What is compared are the boxes and probabilities of equal queries: those of the tokens chosen in single precision.
    """
    model = detector(changes)
    images, samples = random_batch([2, 1], 64, 96)
    with torch.no_grad():
        maps = model.extract_feat(images)
        memory = model.bbox_head.memory(maps, samples)
        selection = model.bbox_head.query_selector(memory)
        expected = model.bbox_head.decoder(selection.queries, memory)
        low = copy.deepcopy(model).to(dtype)
        low_memory = low.bbox_head.memory([x.to(dtype) for x in maps], samples)
        queries = selection.queries._replace(content=selection.queries.content.to(dtype))
        actual = low.bbox_head.decoder(queries, low_memory)
        with torch.autocast('cpu', dtype=dtype):
            mixed = model.bbox_head.decoder(selection.queries, model.bbox_head.memory(maps, samples))
    assert actual.boxes.dtype == mixed.boxes.dtype == torch.float32
    assert actual.logits.dtype == dtype
    for logits, boxes in (actual[:2], mixed[:2]):
        # three layers, each some roundings; a box is a share of the image, a probability lies in [0, 1]
        assert (boxes - expected.boxes).abs().max() < within(dtype, roundings=30)['rtol']
        assert (logits.float().sigmoid() - expected.logits.sigmoid()).abs().max() < within(dtype, roundings=30)['rtol']


@every_half
@every_part
def test_a_cast_model_predicts(changes: dict[str, Any], dtype: torch.dtype) -> None:
    """``model.half()`` through mmdet's own ``test_step``, whose preprocessor hands on single precision."""
    model = detector(changes)
    images, samples = random_batch([2], 64, 96)
    data = {'inputs': [255 * images[0]], 'data_samples': samples}
    with torch.no_grad():
        (expected,) = model.test_step(copy.deepcopy(data))
        (predicted,) = model.to(dtype).test_step(copy.deepcopy(data))
    assert predicted.pred_instances.bboxes.isfinite().all() and predicted.pred_instances.scores.isfinite().all()
    assert len(predicted.pred_instances) == len(expected.pred_instances)
    best = (data_sample.pred_instances.scores.max() for data_sample in (predicted, expected))
    assert abs(next(best) - next(best)) < within(dtype, roundings=30)['rtol']


@every_part
def test_activations_past_the_range_stay_finite(changes: dict[str, Any]) -> None:
    model = detector(changes)
    images, samples = random_batch([2, 0], 64, 96)
    with torch.no_grad():
        blow_up(model, 1e4)
        with recorded(model) as peaks:
            model(images, samples, mode='predict')
        assert max(peaks) > FLOAT16_MAX, 'single precision must leave the range, or this tests nothing'
        with torch.autocast('cpu', dtype=torch.float16):
            mixed = model(images, copy.deepcopy(samples), mode='predict')
        with torch.autocast('cpu', dtype=torch.bfloat16):
            mixed += model(images, copy.deepcopy(samples), mode='predict')
        mixed += copy.deepcopy(model).half()(images, copy.deepcopy(samples), mode='predict')
    for data_sample in mixed:
        assert data_sample.pred_instances.bboxes.isfinite().all() and data_sample.pred_instances.scores.isfinite().all()


@every_half
@every_part
def test_losses_and_gradients_under_autocast(changes: dict[str, Any], dtype: torch.dtype) -> None:
    """Finite with very thin and very large boxes, near those of single precision, computed in it."""
    model = detector(changes).train()
    images, samples = random_batch([3, 0, 1], 64, 96)
    samples[0].gt_instances.bboxes[0] = torch.tensor([10.0, 5.0, 10.01, 60.0])
    samples[0].gt_instances.bboxes[1] = torch.tensor([0.0, 0.0, 96.0, 64.0])
    totals = []
    for enabled in (False, True):
        torch.manual_seed(3)  # of the denoising queries
        with torch.autocast('cpu', dtype=dtype, enabled=enabled):
            losses = model(images, copy.deepcopy(samples), mode='loss')
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
        totals.append(sum(losses.values()))
    totals[1].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    # another matching of near-equal queries may change a few terms of the sum
    assert abs(totals[1] / totals[0] - 1) < 0.1


def test_single_precision_islands() -> None:
    x = torch.tensor([1e-3, 1.0])
    for dtype in HALVES:
        assert as_float(x.to(dtype)).dtype == torch.float32
    assert as_float(x) is x and as_float(x.double()).dtype == torch.float64
    overflow = torch.tensor([torch.inf, -torch.inf, 3.0], dtype=torch.float16)
    assert within_range(overflow).tolist() == [65504.0, -65504.0, 3.0]
    assert within_range(x * 1e9) is not None and (within_range(x * 1e9) == x * 1e9).all()
    assert torch.finfo(torch.float16).max == FLOAT16_MAX


@pytest.mark.parametrize('masked', [False, True])
def test_self_attention_is_torchs(masked: bool) -> None:
    """The same numbers and gradients as ``nn.MultiheadAttention`` with the same weights."""
    ours = SelfAttention(32, 4).double()
    theirs = nn.MultiheadAttention(32, 4, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())
    content, position = torch.rand(2, 7, 32).double(), torch.rand(2, 7, 32).double()
    mask = torch.rand(7, 7) > 0.7 if masked else None
    if mask is not None:
        mask.fill_diagonal_(False)
    actual = ours(content, position, mask)
    query = content + position
    expected = theirs(query, query, content, attn_mask=mask)[0]
    torch.testing.assert_close(actual, expected)
    weight = torch.rand(2, 7, 32).double()
    for out in (actual, expected):
        (out * weight).sum().backward()
    for parameter, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(parameter.grad, other.grad)

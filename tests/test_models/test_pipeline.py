"""From memory to predictions: one function for all detectors, and what knows where the denoising queries end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import random_batch, small_detector
from hosts import HOSTS, host_config, nms_in_torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmdet_iouquery.models.dense_heads import rtdetr_head
from mmdet_iouquery.models.hosts import query_parts
from mmdet_iouquery.models.pipeline import select_and_decode
from mmdet_iouquery.structures import Decoded, DenoisingQueries, Memory, Predictions, Queries, Selection, Targets

MEMORY = Memory(torch.rand(1, 4, 2), ((2, 2),))
TARGETS = Targets(torch.tensor([0]), torch.full((1, 4), 0.5), (1,))
PAIRS = (torch.tensor([0, 0]), torch.tensor([0, 2]), torch.tensor([0, 0]))


@pytest.fixture
def _nms() -> Iterator[None]:
    with nms_in_torch():
        yield


def queries(number: int, first: float) -> Queries:
    """Their content and anchors count up from ``first``."""
    values = torch.arange(number) + first
    return Queries(values[None, :, None].expand(1, number, 2), values[None, :, None].expand(1, number, 4))


class Parts:
    """A selector of three queries, a generator of two groups of two, and a decoder that says the content again."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def select(self, memory: Memory, num_queries: int | None = None) -> Selection:
        assert memory is MEMORY
        self.calls.append(('select', num_queries))
        return Selection(queries(3, 10))

    def denoise(self, targets: Targets, num_queries: int) -> DenoisingQueries:
        assert targets is TARGETS
        self.calls.append(('denoise', num_queries))
        return DenoisingQueries(queries(4, 20), torch.eye(7) == 0, PAIRS, 2)

    def decode(
        self, given: Queries, memory: Memory, attention_mask: Tensor | None = None, num_layers: int | None = None
    ) -> Predictions:
        assert memory is MEMORY
        self.calls.append(('decode', (None if attention_mask is None else attention_mask.shape, num_layers)))
        return Predictions(given.content[None], given.anchors_unact[None])


def test_each_parts_answer_is_the_next_ones_question() -> None:
    parts = Parts()
    decoded = select_and_decode(MEMORY, parts.select, parts.decode, parts.denoise, TARGETS)
    assert parts.calls == [('select', None), ('denoise', 3), ('decode', ((7, 7), None))]
    assert decoded.memory is MEMORY and (decoded.num_denoising, decoded.num_matching) == (4, 3)
    noisy, matching = decoded.split(decoded.predictions.apply(lambda x: x + 100))
    assert noisy.boxes[0, 0, :, 0].tolist() == [120, 121, 122, 123]
    assert matching.logits[0, 0, :, 0].tolist() == [110, 111, 112]
    assert decoded.denoising_predictions.logits[0, 0, :, 0].tolist() == [20, 21, 22, 23]
    assert decoded.matching_predictions.boxes[0, 0, :, 0].tolist() == [10, 11, 12]
    assert decoded.matching_index.tolist() == [4, 5, 6]


@pytest.mark.parametrize('lacking', ['generator', 'targets'])
def test_without_a_generator_or_targets_there_is_no_denoising(lacking: str) -> None:
    parts = Parts()
    denoise, targets = (None, TARGETS) if lacking == 'generator' else (parts.denoise, None)
    decoded = select_and_decode(MEMORY, parts.select, parts.decode, denoise, targets, num_queries=3, num_layers=-1)
    assert parts.calls == [('select', 3), ('decode', (None, -1))]
    assert decoded.denoising is None and (decoded.num_denoising, decoded.num_matching) == (0, 3)
    assert decoded.matching_index.tolist() == [0, 1, 2]
    assert torch.equal(decoded.matching_predictions.logits, decoded.predictions.logits)
    assert decoded.denoising_predictions.logits.shape == (1, 1, 0, 2)


def test_other_predictions_of_the_matching_queries_leave_the_denoising_ones() -> None:
    parts = Parts()
    decoded = select_and_decode(MEMORY, parts.select, parts.decode, parts.denoise, TARGETS)
    fewer = decoded.matching_predictions.apply(lambda x: x[:, :, :2] + 50)
    changed = decoded.with_matching(fewer)
    assert changed.predictions.logits[0, 0, :, 0].tolist() == [20, 21, 22, 23, 60, 61]
    assert decoded.with_matching(decoded.matching_predictions).predictions.boxes.equal(decoded.predictions.boxes)


def test_queries_know_which_of_them_are_for_denoising() -> None:
    denoising = DenoisingQueries(queries(4, 20), torch.eye(7) == 0, PAIRS, 2)
    joined = denoising.before(queries(3, 10)._replace(position=torch.ones(1, 3, 2)))
    noisy, matching = joined.split()
    assert (joined.num_queries, noisy.num_queries, matching.num_queries) == (7, 4, 3)
    assert torch.equal(noisy.content, denoising.queries.content) and not noisy.position.any()
    assert matching.content[0, :, 0].tolist() == [10, 11, 12] and (matching.position == 1).all()


def detector(name: str) -> nn.Module:
    if name == 'RT-DETR':
        return small_detector()
    cfg = host_config(name, sigmoid=True)
    cfg.update(type=HOSTS[name].adapter, query_selector={'type': 'IoUAwareQuerySelector'})
    return MODELS.build(cfg)


@pytest.mark.usefixtures('_nms')
@pytest.mark.parametrize('name', ['RT-DETR', *HOSTS])
def test_a_step_makes_its_targets_once_and_takes_the_one_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    results: list[Decoded] = []
    for module in (rtdetr_head, query_parts):

        def targets_of(*args: Any, original: Any = module.targets_of, **settings: Any) -> Targets:
            calls.append('targets')
            return original(*args, **settings)

        def pipeline(*args: Any, original: Any = module.select_and_decode, **settings: Any) -> Decoded:
            calls.append('pipeline')
            results.append(original(*args, **settings))
            return results[-1]

        monkeypatch.setattr(module, 'targets_of', targets_of)
        monkeypatch.setattr(module, 'select_and_decode', pipeline)
    model = detector(name).train()
    model.init_weights()  # some of mmdet's parameters hold anything before
    batch = random_batch([2, 1], 64, 96, num_classes=5 if name == 'RT-DETR' else 80)
    model.loss(*batch)
    assert calls == ['targets', 'pipeline']
    assert (results[0].num_denoising > 0) == (name in ('RT-DETR', 'DINO', 'DDQDETR'))
    with torch.no_grad():
        model.eval().predict(*batch)
    assert calls == ['targets', 'pipeline', 'pipeline'] and results[1].num_denoising == 0

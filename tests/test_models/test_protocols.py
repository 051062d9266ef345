"""Every registered part keeps the protocol of its kind to mypy; ``tests/test_laws.py`` holds what is called.

To mypy a module of mmengine's is anything, so a part passes for every protocol; its ``forward`` does not. The lists
below hold each part's ``forward`` and are typed by the protocol, so ``make lint`` compares arguments and results. The
tests miss what is registered and in none, and call assigners and criteria.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.model import BaseModule
from torch import Tensor

import mmdet_iouquery  # noqa: F401  before mmdet's models
from mmdet_iouquery.models.decoders import DABDecoder, DeformableDecoder, DistributionDecoder
from mmdet_iouquery.models.denoising import ContrastiveDenoising
from mmdet_iouquery.models.dense_heads.rtdetr_head import CRITERION
from mmdet_iouquery.models.losses import BatchedHungarianAssigner, PerImageAssigner, SetCriterion
from mmdet_iouquery.models.query_selectors import (
    ClassScoreQuerySelector,
    IoUAwareQuerySelector,
    LearnedAnchors,
    LearnedEmbeddings,
    ScoreTimesIoUQuerySelector,
)
from mmdet_iouquery.structures import (
    Assigner,
    Criterion,
    Decoded,
    Decoder,
    DenoisingGenerator,
    Memory,
    Pairs,
    Predictions,
    Queries,
    QuerySelector,
    Targets,
)

CLASSES, DIMS, IMAGES, LAYERS, BUILT_FOR = 3, 16, 2, 2, 9
SHAPES, TOKENS = ((6, 8), (3, 4)), 60
SHARED: dict[str, Any] = {'num_classes': CLASSES, 'embed_dims': DIMS}
SMALL: dict[str, Any] = {**SHARED, 'num_layers': LAYERS, 'num_heads': 2, 'feedforward_channels': 8, 'num_levels': 2}


def query_selectors() -> list[QuerySelector]:
    return [
        IoUAwareQuerySelector(**SHARED, num_queries=BUILT_FOR).forward,
        ClassScoreQuerySelector(**SHARED, num_queries=BUILT_FOR).forward,
        ScoreTimesIoUQuerySelector(**SHARED, num_queries=BUILT_FOR).forward,
        LearnedAnchors(**SHARED, num_queries=BUILT_FOR).forward,
        LearnedEmbeddings(**SHARED, num_queries=BUILT_FOR).forward,
    ]


def denoising_generators() -> list[DenoisingGenerator]:
    return [ContrastiveDenoising(**SHARED, num_denoising=6).forward]


def decoders() -> list[Decoder]:
    return [
        DeformableDecoder(**SMALL).forward,
        DABDecoder(**SMALL).forward,
        DABDecoder(**SMALL, cross_attention='deformable').forward,
        DistributionDecoder(**SMALL).forward,
    ]


def assigners() -> list[Assigner]:
    costs = [{'type': 'FocalLossCost', 'weight': 2.0}, {'type': 'BBoxL1Cost', 'weight': 5.0, 'box_format': 'xywh'}]
    mmdets = TASK_UTILS.build({'type': 'HungarianAssigner', 'match_costs': costs})
    return [BatchedHungarianAssigner(), PerImageAssigner(mmdets)]


def criteria() -> list[Criterion]:
    settings: dict[str, Any] = {key: value for key, value in CRITERION.items() if key != 'type'}
    return [SetCriterion(**settings).forward]


KINDS: dict[str, Callable[[], Sequence[Any]]] = {
    'query_selectors': query_selectors,
    'denoising': denoising_generators,
    'decoders': decoders,
    'losses': lambda: [*assigners(), *criteria()],
}
"""Folder of ``models`` to its parts."""
NO_PARTS = {
    'IoUVarifocalLoss',
    'MatchabilityAwareLoss',
    'FineGrainedLocalizationLoss',
    'DistributionDistillationLoss',
    'CosineFeatureLoss',
}
"""Losses: called as mmdet calls its own, by the criterion, or by the data preprocessor."""


class ReturnsTensors(BaseModule):
    """What a decoder must not be: mypy finds its ``forward`` at fault, or else the comment below unused."""

    def forward(
        self,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, IMAGES, 6, CLASSES), torch.zeros(1, IMAGES, 6, 4)


def decoder_of_another_kind() -> Decoder:
    return ReturnsTensors().forward  # type: ignore[return-value]


def class_of(part: Any) -> type:
    """Of a part, or of the one whose ``forward`` it is."""
    return type(getattr(part, '__self__', part))


@pytest.mark.parametrize('folder', KINDS)
def test_every_registered_part_is_held_against_its_protocol(folder: str) -> None:
    registered = {
        name
        for registry in (MODELS, TASK_UTILS)
        for name, part in registry.module_dict.items()
        if part.__module__.startswith(f'mmdet_iouquery.models.{folder}.')
    }
    assert registered
    assert registered - NO_PARTS <= {class_of(part).__name__ for part in KINDS[folder]()}


def memory() -> Memory:
    return Memory(torch.randn(IMAGES, TOKENS, DIMS), SHAPES)


def truth(*counts: int) -> Targets:
    return Targets(torch.arange(sum(counts)) % CLASSES, torch.rand(sum(counts), 4) * 0.4 + 0.2, counts)


def predictions(layers: int, queries: int) -> Predictions:
    logits = torch.randn(layers, IMAGES, queries, CLASSES)
    return Predictions(logits, torch.rand(layers, IMAGES, queries, 4) * 0.4 + 0.2)


@pytest.mark.parametrize('assign', assigners(), ids=lambda part: class_of(part).__name__)
def test_assigners(assign: Any) -> None:
    targets = truth(2, 1)
    pairs = assign(predictions(LAYERS, 5), targets)
    assert type(pairs) is Pairs and all(index.dtype == torch.int64 for index in pairs)
    assert torch.equal(targets.image[pairs.truth], pairs.image)
    assert sorted(zip(pairs.layer.tolist(), pairs.truth.tolist())) == [(i, j) for i in range(LAYERS) for j in range(3)]
    assert len(set(zip(*(index.tolist() for index in pairs.predicted)))) == 3 * LAYERS
    assert [index.shape for index in assign(predictions(LAYERS, 5), truth(0, 0))] == [(0,)] * 4


@pytest.mark.parametrize('criterion', criteria(), ids=lambda part: class_of(part).__name__)
def test_criteria(criterion: Any) -> None:
    selection = query_selectors()[0](memory(), 5)
    names = []
    for targets in (truth(2, 1), truth(0, 0)):
        denoising = denoising_generators()[0](targets, 5)
        predicted = predictions(LAYERS, denoising.queries.num_queries + 5)
        losses = criterion(Decoded(memory(), selection, denoising, predicted), targets)
        assert all(isinstance(loss, Tensor) and loss.shape == () and loss.isfinite() for loss in losses.values())
        names.append(list(losses))
    assert names[0] == names[1] and len(names[0]) == 3 * (2 * LAYERS + 1)

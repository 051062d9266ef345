"""Matching, targets and losses of all layers, the encoder and denoising queries, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ...core import denoising_layout
from ...models.dense_heads.rtdetr_head import CRITERION
from ...structures import Decoded, DenoisingQueries, EncoderTarget, Memory, Predictions, Queries, Selection, Targets
from .models import Batch
from .reference import NAME, Reference
from .timing import counted_operations, rows_of, time_in_turn

CLASSES, DENOISING = 80, 100
OURS = 'ours'


class Case(NamedTuple):
    """Numbers of a step; ``layers`` of the decoder, beside the encoder."""

    images: int = 16
    objects: int = 20
    queries: int = 300
    layers: int = 6


STANDARD = Case()
SMALL = Case(images=4)
"""What grows, as large steps of the authors' do not fit into 24 GiB."""
GROWTH = {
    'objects': (1, 5, 20, 50, 100, 200, 500),
    'queries': (100, 300, 600, 1000),
    'images': (1, 4, 16, 32),
    'layers': (1, 3, 6, 12),
}


def criterion(reference: Reference | None, *, rounds: int, growth: bool) -> list[dict[str, Any]]:
    """Time and operations of the standard case and, with ``growth``, where one of its numbers varies."""
    cases = [(STANDARD, 'standard')]
    if growth:
        cases += [(SMALL._replace(**{what: n}), what) for what, numbers in GROWTH.items() for n in numbers]
    return [row for case, what in cases for row in _rows(case, reference, rounds, what)]


def _rows(case: Case, reference: Reference | None, rounds: int, varied: str) -> list[dict[str, Any]]:
    sides = criterion_sides(case, reference)
    rows = rows_of(time_in_turn(sides, rounds), NAME, varied=varied, **case._asdict())
    for row in rows:
        with counted_operations() as operations:
            sides[row['side']]()
        row['operations'] = sum(operations.values())
    return rows


def criterion_sides(case: Case, reference: Reference | None = None) -> dict[str, Callable[[], Tensor]]:
    """Functions that compute the loss of the same random predictions, and its gradients, and return it."""
    torch.manual_seed(0)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    truth = Batch(case.images, 1, case.objects, device)
    # the authors' denoising has room for all objects, ours for a set number, so that is set to suit
    layout = denoising_layout([case.objects] * case.images, max(DENOISING, case.objects), device=device)
    total = layout.num_denoising + case.queries
    shape, encoder_shape = (case.layers, case.images, total), (1, case.images, case.queries)
    leaves = [
        leaf.to(device).requires_grad_()
        for lead in (shape, encoder_shape)
        for leaf in (torch.randn(*lead, CLASSES) - 3, 0.25 + 0.5 * torch.rand(*lead, 4))
    ]
    sides: dict[str, Callable[[], Tensor]] = {}
    if reference is not None:
        sides[NAME] = _with_gradients(leaves, _theirs(reference, truth, layout, leaves))
    sides[OURS] = _with_gradients(leaves, _ours(truth, layout, leaves))
    return sides


def _with_gradients(leaves: list[Tensor], loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def call() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        total = loss()
        total.backward()
        return total.detach()

    return call


def _ours(truth: Batch, layout: Any, leaves: list[Tensor]) -> Callable[[], Tensor]:
    init_default_scope('mmdet')
    module: nn.Module = MODELS.build(CRITERION)
    logits, boxes, encoder_logits, encoder_boxes = leaves
    targets = Targets(torch.cat(truth.labels), torch.cat(truth.boxes), tuple(map(len, truth.labels)))

    def queries(number: int) -> Queries:
        return Queries(logits.new_empty(logits.shape[1], number, 1), boxes.new_empty(logits.shape[1], number, 4))

    selected = queries(encoder_logits.shape[2])
    selection = Selection(selected, Predictions(encoder_logits, encoder_boxes), encoder_target=EncoderTarget('iou'))
    mask = layout.attention_mask(encoder_logits.shape[2])
    denoising = DenoisingQueries(queries(layout.num_denoising), mask, layout.pairs, layout.num_groups)
    memory = Memory(logits.new_empty(logits.shape[1], 0, 1), ())
    decoded = Decoded(memory, selection, denoising, Predictions(logits, boxes))
    return lambda: sum(module(decoded, targets).values())


def _theirs(reference: Reference, truth: Batch, layout: Any, leaves: list[Tensor]) -> Callable[[], Tensor]:
    targets = reference.targets(truth.labels, truth.boxes)
    image, query, _ = layout.pairs
    positives = [query[image == i] for i in range(len(targets))]
    first = layout.num_denoising

    def outputs(logits: Tensor, boxes: Tensor) -> list[dict[str, Tensor]]:
        return [{'pred_logits': layer_logits, 'pred_boxes': some} for layer_logits, some in zip(logits, boxes)]

    def loss() -> Tensor:
        logits, boxes, encoder_logits, encoder_boxes = leaves
        matching = outputs(logits[:, :, first:], boxes[:, :, first:])
        given: dict[str, Any] = {
            **matching[-1],
            'aux_outputs': matching[:-1] + outputs(encoder_logits, encoder_boxes),
            'dn_aux_outputs': outputs(logits[:, :, :first], boxes[:, :, :first]),
            'dn_meta': {
                'dn_positive_idx': positives,
                'dn_num_group': layout.num_groups,
                'dn_num_split': [first, logits.shape[2] - first],
            },
        }
        return sum(reference.criterion(given, targets).values())

    return loss

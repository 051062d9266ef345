"""Matching, targets and losses of all layers, the encoder and denoising queries, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS
from torch import Tensor

from ...core import DenoisingLayout, bin_values, denoising_layout
from ...models.dense_heads.rtdetr_head import complete_criterion
from ...structures import (
    Decoded,
    DenoisingQueries,
    EncoderTarget,
    Memory,
    Predictions,
    Queries,
    Refinement,
    Selection,
    Targets,
)
from ..timing import counted_operations, rows_of, time_in_turn
from .models import Batch, model_config
from .reference import NAME, Reference

CLASSES, DENOISING = 80, 100
REG_MAX, REG_SCALE = 32, 4.0
"""Of D-FINE's distributions."""
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


def criterion(reference: Reference | None, *, model_name: str, rounds: int, growth: bool) -> list[dict[str, Any]]:
    """Time and operations of the standard case and, with ``growth``, where one of its numbers varies.

    Args:
        model_name: whose criterion.
    """
    cases = [(STANDARD, 'standard')]
    if growth:
        cases += [(SMALL._replace(**{varied: n}), varied) for varied, numbers in GROWTH.items() for n in numbers]
    return [row for case, varied in cases for row in _rows(case, reference, model_name, rounds, varied)]


def _rows(case: Case, reference: Reference | None, model_name: str, rounds: int, varied: str) -> list[dict[str, Any]]:
    sides = criterion_sides(case, reference, model_name)
    rows = rows_of(time_in_turn(sides, rounds), NAME, model=model_name, varied=varied, **case._asdict())
    for row in rows:
        with counted_operations() as operations:
            sides[row['side']]()
        row['operations'] = sum(operations.values())
    return rows


def criterion_config(model_name: str) -> dict[str, Any]:
    """Of a model's head, or the head's default."""
    return dict(complete_criterion(model_config(model_name).bbox_head.get('criterion')))


def criterion_sides(
    case: Case, reference: Reference | None = None, model_name: str = 'R18'
) -> dict[str, Callable[[], Tensor]]:
    """Functions that compute the loss of the same random predictions, and its gradients, and return it.

    The predictions of a query in all layers differ by a tenth of what those of two queries do, as layers of a decoder
    are alike: some matchings agree and others don't.
    """
    torch.manual_seed(0)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    truth = Batch(case.images, 1, case.objects, device)
    decoded, leaves = random_predictions(case, device, refined='loss_fgl' in criterion_config(model_name))
    sides: dict[str, Callable[[], Tensor]] = {}
    if reference is not None:
        their_loss = reference.loss_of(model_name, decoded, reference.targets(truth.labels, truth.boxes))
        sides[NAME] = _with_gradients(leaves, their_loss)
    module = MODELS.build(criterion_config(model_name))
    targets = Targets(torch.cat(truth.labels), torch.cat(truth.boxes), tuple(map(len, truth.labels)))
    sides[OURS] = _with_gradients(leaves, lambda: sum(module(decoded, targets).values()))
    return sides


def _with_gradients(leaves: list[Tensor], loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def call() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        total = loss()
        total.backward()
        return total.detach()

    return call


def random_predictions(case: Case, device: torch.device, *, refined: bool) -> tuple[Decoded, list[Tensor]]:
    """Random predictions, ``refined``: with distributions of their edges; and the tensors that get gradients."""
    # the authors' denoising has room for all objects, ours for a set number, so that is set to suit
    layout = denoising_layout([case.objects] * case.images, max(DENOISING, case.objects), device=device)
    first = layout.num_denoising
    leaves: list[Tensor] = []

    def alike(draw: Callable[..., Tensor], *tail: int) -> Tensor:
        """Of the layers, the initial prediction and the encoder (L + 2, B, P + Q, ...)."""
        shape = (case.images, first + case.queries, *tail)
        return (0.9 * draw(*shape) + 0.1 * draw(case.layers + 2, *shape)).to(device)

    def leaf(values: Tensor) -> Tensor:
        leaves.append(values.clone().requires_grad_())
        return leaves[-1]

    drawn = Predictions(alike(torch.randn, CLASSES) - 3, 0.25 + 0.5 * alike(torch.rand, 4))
    predictions = drawn.apply(lambda x: leaf(x[:-2]))
    encoder = drawn.apply(lambda x: leaf(x[-1:, :, first:]))
    if refined:
        edge_logits = leaf(alike(torch.randn, 4, REG_MAX + 1)[:-2])
        logits, boxes, _ = drawn.apply(lambda x: leaf(x[-2:-1]))
        values = bin_values(REG_MAX, REG_SCALE, device=device)
        predictions = predictions._replace(refinement=Refinement(edge_logits, logits, boxes, values, REG_SCALE))
    return _decoded(layout, predictions, encoder), leaves


def _decoded(layout: DenoisingLayout, predictions: Predictions, encoder: Predictions) -> Decoded:
    """Predictions of queries that have no content: a criterion does not look at it."""
    empty, images = encoder.boxes.new_empty, encoder.boxes.shape[1]

    def queries(number: int) -> Queries:
        return Queries(empty(images, number, 1), empty(images, number, 4))

    num_queries = encoder.boxes.shape[2]
    selection = Selection(queries(num_queries), encoder, encoder_target=EncoderTarget('iou'))
    mask = layout.attention_mask(num_queries)
    denoising = DenoisingQueries(queries(layout.num_denoising), mask, layout.pairs, layout.num_groups)
    return Decoded(Memory(empty(images, 0, 1), ()), selection, denoising, predictions)

"""Laws of a decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..structures import Memory, Predictions, Queries, Refinement
from .laws import (
    CALLED,
    HIGH,
    WIDE,
    Call,
    Outputs,
    Subject,
    gradients_of,
    memory_of,
    reaches,
    seeded,
    with_other_padding,
)

NUM_QUERIES = 6


@seeded()
def check_decoder(part: Any, *, num_classes: int = 5, embed_dims: int = 32, num_levels: int = 3) -> None:
    """Hold a decoder to the laws of :class:`~mmdet_iouquery.structures.Decoder`.

    In training every layer predicts, in prediction the last one run, and ``num_layers`` says how many are run, on the
    same weights; any number of queries, in any order; nobody reads padding or a query that the attention mask hides;
    learned position codes count; anchors of any logit give finite predictions and gradients; every parameter learns,
    and so do content, anchors and memory. And the laws of all that predict: see :meth:`.Subject.check_calls`.

    Args:
        part: the config, which is built with ``num_classes``, ``embed_dims`` and ``num_levels`` where it does not say
            them; or a built decoder of these.
        num_classes: number of classes, C.
        embed_dims: channels of a token, D.
        num_levels: maps of the memory, 1 to 4.

    Raises:
        LawError: a law is broken.
        InputError: the config is wrong.
    """
    subject = Subject(part, num_classes=num_classes, embed_dims=embed_dims, num_levels=num_levels)
    queries = _queries(NUM_QUERIES, embed_dims)
    _check_layers(subject, queries, memory_of(WIDE[:num_levels], embed_dims), num_classes)
    for shapes in (WIDE[:num_levels], HIGH[:num_levels]):
        memory = memory_of(shapes, embed_dims)
        inputs = queries.content, queries.anchors_unact, memory.tokens
        subject.check_calls(_call(memory), *inputs, traced=shapes[0] in WIDE)
    for number in (1, 40):
        with torch.no_grad(), subject.running(f'it takes any number of queries, such as {number}'):
            given = _queries(number, embed_dims)._replace(num_denoising=number // 2)
            _check_record(subject, subject.training(False)(given, memory), 1, number, num_classes)
    _check_queries(subject, queries, memory)
    _check_padding(subject, queries, memory_of(WIDE[:num_levels], embed_dims, padded=True))
    _check_gradients(subject, queries, memory)


def _queries(number: int, embed_dims: int) -> Queries:
    return Queries(torch.randn(3, number, embed_dims), torch.randn(3, number, 4))


def _call(memory: Memory) -> Call:
    def call(
        part: Any,
        content: Tensor,
        anchors_unact: Tensor,
        tokens: Tensor,
        padding: Tensor | None = None,
        extent: Tensor | None = None,
    ) -> Outputs:
        queries = Queries(content, anchors_unact)
        return _last(part(queries, Memory(tokens, memory.spatial_shapes, padding, extent)))

    return call


def _last(predictions: Predictions) -> Outputs:
    """Of the last layer, images first."""
    return {'logits': predictions.logits[-1], 'boxes': predictions.boxes[-1]}


def _predict(subject: Subject, *inputs: Any) -> Outputs:
    with torch.no_grad(), subject.running(CALLED):
        return _last(subject.training(False)(*inputs))


def _check_layers(subject: Subject, queries: Queries, memory: Memory, num_classes: int) -> None:
    part, depth = subject.training(), getattr(subject.part, 'num_layers', None)
    subject.hold(isinstance(depth, int) and depth > 0, 'the attribute num_layers says how many there are', repr(depth))
    assert depth
    for module in part.modules():  # layers stay in evaluation mode: they compute the same, whatever their dropout
        module.training = hasattr(module, 'num_layers')
    with torch.no_grad(), subject.running(CALLED):
        trained = part(queries, memory)
        _check_record(subject, trained, depth, NUM_QUERIES, num_classes)
        trained.boxes[..., 2:].clamp_(min=0)  # a refinement may turn a box inside out, in training alone
        part.eval()
        for asked in (*range(1, depth + 1), *range(-depth, 0), None):
            run = depth if asked is None else asked if asked > 0 else depth + 1 + asked
            actual, expected = part(queries, memory, num_layers=asked), Predictions(*(x[:run] for x in trained[:2]))
            _check_record(subject, actual, 1, NUM_QUERIES, num_classes)
            law = f'num_layers={asked} of {depth} gives what layer {run} gives in training'
            subject.equal(law, _last(actual), _last(expected))
    for asked in (0, depth + 1, -depth - 1):
        law = f'num_layers={asked} of {depth} is refused by a ValueError'
        with subject.running(law):
            try:
                part(queries, memory, num_layers=asked)
            except ValueError:
                continue
            subject.hold(False, law, 'an answer')


def _check_record(subject: Subject, answer: Any, layers: int, number: int, num_classes: int) -> None:
    subject.record('the answer', answer, Predictions)
    subject.tensor('logits', answer.logits, (layers, 3, number, num_classes))
    subject.tensor('boxes', answer.boxes, (layers, 3, number, 4))
    low, high = float(answer.boxes.min()), float(answer.boxes.max())
    # a refinement of edges may leave the image in part
    subject.hold(-1 <= low <= high <= 2, 'boxes are normalised, in about 0..1', f'{low:.3g}..{high:.3g}')
    if not subject.part.training:
        subject.hold((answer.boxes[..., 2:] >= 0).all(), 'no size that is predicted is below 0', f'{low:.3g}')
        return
    refines = getattr(subject.part, 'refines_distributions', False)
    law = 'predictions have a refinement in training just where refines_distributions is True'
    subject.hold(isinstance(answer.refinement, Refinement) == refines, law, type(answer.refinement).__name__)


def _check_queries(subject: Subject, queries: Queries, memory: Memory) -> None:
    plain, order = _predict(subject, queries, memory), torch.randperm(NUM_QUERIES)
    shuffled = _predict(subject, Queries(queries.content[:, order], queries.anchors_unact[:, order]), memory)
    subject.equal('the order of queries does not matter', shuffled, {name: x[:, order] for name, x in plain.items()})

    mask = torch.zeros(NUM_QUERIES, NUM_QUERIES, dtype=torch.bool)
    mask[:2, 2:] = True
    moved = torch.arange(NUM_QUERIES).view(-1, 1) // 2.0  # all but the first two
    others = Queries(queries.content + moved, queries.anchors_unact + moved)
    actual, expected = (
        {name: x[:, :2] for name, x in _predict(subject, asked, memory, mask).items()} for asked in (others, queries)
    )
    subject.equal('a query that attention_mask hides is not read', actual, expected)

    coded = _predict(subject, queries._replace(position=torch.randn_like(queries.content)), memory)
    apart = float((coded['logits'] - plain['logits']).abs().max())
    subject.hold(apart > 1e-6, 'queries.position is added to the codes of the anchors', 'the same logits without it')


def _check_padding(subject: Subject, queries: Queries, memory: Memory) -> None:
    """With boxes of the padded input, as ``RTDETRHead`` has them, and of each image, as mmdet's detectors."""
    assert memory.padding is not None and memory.extent is not None
    inputs = queries.content, queries.anchors_unact, memory.tokens, memory.padding, memory.extent
    subject.check_calls(_call(memory), *inputs, traced=False)
    for given in (memory._replace(extent=None), memory):
        actual, expected = (_predict(subject, queries, padded) for padded in (with_other_padding(given), given))
        subject.equal('padding is not read', actual, expected)
    none, whole, limited = (
        _predict(subject, queries, memory._replace(padding=None, extent=extent))
        for extent in (None, torch.ones_like(memory.extent), memory.extent)
    )
    subject.equal('an extent of the whole maps changes nothing', whole, none)
    read = float((limited['logits'] - none['logits']).abs().max())
    subject.hold(read > 1e-6, 'boxes refer to the part of the maps that memory.extent says', 'the same without it')


def _check_gradients(subject: Subject, queries: Queries, memory: Memory) -> None:
    inputs = {'content': queries.content, 'anchors': queries.anchors_unact, 'memory': memory.tokens}
    for x in inputs.values():
        x.requires_grad_()
    with subject.running(CALLED):
        outputs = _all_layers(subject.training()(queries, memory))
        subject.check_learning(outputs)
        for name, x in inputs.items():
            subject.hold(reaches(outputs, x), f'predictions train the {name}', 'no gradient')
        logits = torch.tensor([-60.0, 60.0, 1e4]).view(1, 3, 1).expand(3, 3, 4)  # the last are of tokens at the border
        extreme = _all_layers(subject.part(Queries(queries.content[:, :3], logits), memory))
        gradients = [x for x in gradients_of(extreme, *subject.trained.values()) if x is not None]
        law = 'anchors of any logit can be decoded and learned from'
        subject.hold(all(x.isfinite().all() for x in (*extreme.values(), *gradients)), law, 'NaN or infinity')


def _all_layers(predictions: Predictions) -> Outputs:
    refined = zip(Refinement._fields, (predictions.refinement or ())[:3])
    return {'logits': predictions.logits, 'boxes': predictions.boxes, **dict(refined)}

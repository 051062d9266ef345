"""Laws of a query selector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..structures import EncoderTarget, Memory, Predictions, Queries, Selection
from .laws import CALLED, HIGH, WIDE, Call, Outputs, Subject, memory_of, reaches, seeded, with_other_padding

ASKED = 4
"""Queries that every selector can give."""


@seeded()
def check_query_selector(part: Any, *, num_classes: int = 5, embed_dims: int = 32, detached: bool = True) -> None:
    """Hold a query selector to the laws of :class:`~mmdet_iouquery.structures.QuerySelector`.

    The records have the forms that their docstrings say, for one map and for several, wide and high; there are as many
    queries as are asked for; token indices are given just where the class says ``selects_tokens``, are tokens, and none
    is padding, whose content does not count; every parameter learns; encoder predictions train the memory and, where
    ``detached``, queries that are tokens do not. And the laws of all that predict: see :meth:`.Subject.check_calls`.

    Args:
        part: the config, which is built with ``num_classes`` and ``embed_dims`` where it does not say them; or a built
            selector of these.
        num_classes: number of classes, C.
        embed_dims: channels of a token, D.
        detached: False for a selector through whose choice the decoder's losses are to train the encoder.

    Raises:
        LawError: a law is broken.
        InputError: the config is wrong.
    """
    subject = Subject(part, num_classes=num_classes, embed_dims=embed_dims)
    for shapes in (WIDE, HIGH[:3], WIDE[:1]):
        memory = memory_of(shapes, embed_dims)
        with subject.running(CALLED):
            _check_numbers(subject, memory, num_classes)
        subject.check_calls(_call(memory), memory.tokens, traced=shapes is WIDE)
    _check_padding(subject, memory_of(HIGH[:3], embed_dims, padded=True))
    _check_gradients(subject, memory_of(HIGH[:3], embed_dims), detached)


def _call(memory: Memory) -> Call:
    def call(part: Any, tokens: Tensor, padding: Tensor | None = None, extent: Tensor | None = None) -> Outputs:
        return _tensors(part(Memory(tokens, memory.spatial_shapes, padding, extent), ASKED))

    return call


def _tensors(selection: Selection) -> Outputs:
    """All of a selection, images first."""
    encoder, iou_logits = selection.encoder, selection.encoder_target.iou_logits
    tensors = {
        **{f'queries.{name}': x for name, x in zip(Queries._fields, selection.queries[:3])},
        'token_index': selection.token_index,
        'encoder.logits': None if encoder is None else encoder.logits[0],
        'encoder.boxes': None if encoder is None else encoder.boxes[0],
        'iou_logits': None if iou_logits is None else iou_logits[0],
    }
    return {name: x for name, x in tensors.items() if isinstance(x, Tensor)}


def _check_numbers(subject: Subject, memory: Memory, num_classes: int) -> None:
    """On the same weights."""
    part, tokens = subject.training(False), memory.tokens.shape[1]
    for asked in (None, 1, ASKED, tokens, tokens + 7):
        try:
            with torch.no_grad():
                selection = part(memory, asked)
        except ValueError as error:
            law = f'{asked} queries can be asked for, or a ValueError says how many have been learned'
            subject.hold(asked is not None and asked > ASKED, law, repr(error))
            continue
        _check_record(subject, selection, memory, num_classes)
        if asked is not None:  # of fewer tokens all become queries, once or, of some selectors, several times
            number = selection.queries.num_queries
            subject.hold(min(asked, tokens) <= number <= asked, f'of {tokens} tokens {asked} become queries', number)


def _check_record(subject: Subject, selection: Any, memory: Memory, num_classes: int) -> None:
    subject.record('the answer', selection, Selection)
    queries, encoder, index, target = selection
    subject.record('queries', queries, Queries)
    subject.record('encoder_target', target, EncoderTarget)
    batch, tokens, dims = memory.tokens.shape
    number = queries.num_queries
    subject.tensor('queries.content', queries.content, (batch, number, dims))
    subject.tensor('queries.anchors_unact', queries.anchors_unact, (batch, number, 4))
    if queries.position is not None:
        subject.tensor('queries.position', queries.position, (batch, number, dims))
    subject.hold(queries.num_denoising == 0, 'queries.num_denoising is 0', queries.num_denoising)
    selects = getattr(subject.part, 'selects_tokens', False)
    law = 'there is a token_index just where selects_tokens is True'
    subject.hold((index is not None) == selects, law, f'selects_tokens={selects}')
    if index is not None:
        built_for = getattr(subject.part, 'num_queries', None)
        subject.hold(isinstance(built_for, int), 'num_queries says for how many it was built', built_for)
        subject.tensor('token_index', index, (batch, number), torch.int64)
        subject.hold(((index >= 0) & (index < tokens)).all(), f'token_index is in 0..{tokens - 1}', index.tolist())
    subject.hold(target.score in ('iou', 'label', None), "encoder_target.score is 'iou', 'label' or None", target.score)
    if encoder is not None:
        subject.record('encoder', encoder, Predictions)
        classes = 1 if target.class_agnostic else num_classes
        subject.tensor('encoder.logits', encoder.logits, (1, batch, number, classes))
        subject.tensor('encoder.boxes', encoder.boxes, (1, batch, number, 4))
        low, high = float(encoder.boxes.min()), float(encoder.boxes.max())
        subject.hold(0 <= low <= high <= 1, 'encoder.boxes are normalised, in 0..1', f'{low:.3g}..{high:.3g}')
    if target.iou_logits is not None:
        subject.tensor('encoder_target.iou_logits', target.iou_logits, (1, batch, number))


def _check_padding(subject: Subject, memory: Memory) -> None:
    """With boxes of the padded input, as ``RTDETRHead`` has them, and of each image, as mmdet's detectors."""
    assert memory.padding is not None and memory.extent is not None
    subject.check_calls(_call(memory), memory.tokens, memory.padding, traced=False)
    subject.check_calls(_call(memory), memory.tokens, memory.padding, memory.extent, traced=False)
    room = int((~memory.padding).sum(1).min())
    for given in (memory._replace(extent=None), memory):
        with torch.no_grad(), subject.running(CALLED):
            selection, other = (
                subject.part(given_memory, ASKED) for given_memory in (given, with_other_padding(given))
            )
            if selection.token_index is not None:
                padded = int(memory.padding.gather(1, subject.part(given, room).token_index).sum())
                law = f'no query of {room} is padding where there are as many other tokens'
                subject.hold(not padded, law, f'{padded} of {3 * room}')
            subject.equal('tokens in padding do not count', _tensors(other), _tensors(selection))


def _check_gradients(subject: Subject, memory: Memory, detached: bool) -> None:
    memory.tokens.requires_grad_()
    with subject.running(CALLED):
        selection = subject.training()(memory)
        outputs = _tensors(selection)
        subject.check_learning(outputs)
    encoder, queries = ({k: x for k, x in outputs.items() if k.startswith(kind)} for kind in ('encoder', 'queries'))
    if encoder:
        subject.hold(reaches(encoder, memory.tokens), 'encoder predictions train the memory', 'no gradient')
    if detached and selection.token_index is not None:
        subject.hold(not reaches(queries, memory.tokens), 'queries that are tokens are detached', 'a gradient')

"""Laws of a denoising generator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..structures import DenoisingQueries, Queries, Targets
from .laws import Outputs, Subject, gradients_of, seeded

MATCHING = 5
"""Matching queries that the denoising ones stand before."""
CROWDED = (150, 2)
BATCHES = ((2, 0, 1), (1,), CROWDED, (0, 0), (0,))
"""Numbers of boxes of the images of some batches."""


@seeded()
def check_denoising(part: Any, *, num_classes: int = 5, embed_dims: int = 32) -> None:
    """Hold a denoising generator to the laws of :class:`~mmdet_iouquery.structures.DenoisingGenerator`.

    The records have the forms that their docstrings say, for batches of no box, one and many; there are always some
    queries, so that the same parameters take part in every step; each pair is of a query, an image and a box of that
    image; the mask hides denoising queries from matching ones, leaves those alone, and hides queries that are to
    restore the same box from each other; equal seeds give equal queries; targets stay as they are; every parameter
    learns.

    Args:
        part: the config, which is built with ``num_classes`` and ``embed_dims`` where it does not say them; or a built
            generator of these.
        num_classes: number of classes, C.
        embed_dims: channels of a token, D.

    Raises:
        LawError: a law is broken.
        InputError: the config is wrong.
    """
    subject = Subject(part, num_classes=num_classes, embed_dims=embed_dims)
    subject.training()
    for counts in BATCHES:
        targets = _targets(counts, num_classes)
        before = {'labels': targets.labels.clone(), 'boxes': targets.boxes.clone()}
        with subject.running(f'it takes any numbers of boxes, such as {counts}'):
            with seeded(1):
                given = subject.part(targets, MATCHING)
            subject.equal('targets stay as they are', dict(zip(Targets._fields, targets[:2])), before)
            _check_record(subject, given, len(counts), embed_dims)
            _check_mask(subject, given)
            _check_pairs(subject, given, targets, crowded=counts == CROWDED)
            with seeded(1):
                again = subject.part(targets, MATCHING)
            subject.equal('equal seeds give equal queries', _tensors(again), _tensors(given))
            left_out = sum(x is None for x in gradients_of(_tensors(given), *subject.trained.values()))
            law = f'all parameters take part with {counts} boxes, too, as distributed training waits for them'
            subject.hold(not left_out, law, f'{left_out} that do not')
    draws: dict[str, Tensor] = {}
    for i in range(8):  # chance may leave a parameter out of one
        given = subject.part(_targets((num_classes, 2), num_classes), MATCHING)
        draws.update({f'{name} {i}': x for name, x in _tensors(given).items()})
    subject.check_learning(draws)


def _targets(counts: tuple[int, ...], num_classes: int) -> Targets:
    total = sum(counts)
    return Targets(torch.arange(total) % num_classes, torch.rand(total, 4) * 0.4 + 0.2, counts)


def _tensors(given: DenoisingQueries) -> Outputs:
    return {'content': given.queries.content, 'anchors_unact': given.queries.anchors_unact}


def _check_record(subject: Subject, given: Any, batch: int, embed_dims: int) -> None:
    subject.record('the answer', given, DenoisingQueries)
    subject.record('queries', given.queries, Queries)
    number = given.queries.num_queries
    subject.hold(number > 0, 'there are always denoising queries, of padding where there are no boxes', number)
    subject.tensor('queries.content', given.queries.content, (batch, number, embed_dims))
    subject.tensor('queries.anchors_unact', given.queries.anchors_unact, (batch, number, 4))
    subject.hold(given.queries.position is None, 'queries.position is None', 'position codes')
    subject.tensor('attention_mask', given.attention_mask, (number + MATCHING,) * 2, torch.bool)
    for name, index in zip(('image', 'query', 'truth'), given.pairs):
        subject.tensor(f'{name} of the pairs', index, given.pairs[0].shape[:1], torch.int64)


def _check_mask(subject: Subject, given: DenoisingQueries) -> None:
    mask, first = given.attention_mask, given.queries.num_queries
    law = 'no matching query sees a denoising one, which knows the ground truth'
    subject.hold(mask[first:, :first].all(), law, 'False in attention_mask[P:, :P]')
    subject.hold(not mask[first:, first:].any(), 'matching queries see each other', 'True in attention_mask[P:, P:]')
    law = 'every query sees itself, as attention to nothing is NaN'
    subject.hold(not mask.diagonal().any(), law, 'True in the diagonal of attention_mask')


def _check_pairs(subject: Subject, given: DenoisingQueries, targets: Targets, *, crowded: bool) -> None:
    image, query, truth = given.pairs
    number, total = given.queries.num_queries, targets.labels.shape[0]
    for name, index, end in (('query', query, number), ('truth', truth, total)):
        subject.hold(((index >= 0) & (index < end)).all(), f'{name} of the pairs is below {end}', index.tolist())
    law = 'a pair is of an image and one of its boxes'
    subject.hold(torch.equal(targets.image[truth], image), law, f'images {image.tolist()} and boxes {truth.tolist()}')
    restoring = len(set(zip(image.tolist(), query.tolist())))
    subject.hold(restoring == image.shape[0], 'a query restores one box', f'{restoring} for {image.shape[0]}')
    times = truth.bincount(minlength=total)
    right = times <= given.num_groups if crowded else times == given.num_groups
    law = f'a box is in num_groups={given.num_groups} pairs, by which losses are divided (of a crowd: at most)'
    subject.hold(right.all(), law, times.tolist())
    visible = (truth[:, None] == truth) & ~given.attention_mask[query[:, None], query]
    law = 'queries that restore the same box do not see each other'
    subject.hold(int(visible.sum()) == image.shape[0], law, f'{int(visible.sum()) - image.shape[0]} that do')

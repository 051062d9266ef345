"""Laws of a classification loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..models.losses.quality_losses import takes_quality
from .laws import Subject, seeded

ROWS = 8


@seeded()
def check_criterion_loss(part: Any, *, num_classes: int = 5) -> None:
    """Hold a ``loss_cls`` to what :class:`~mmdet_iouquery.models.losses.SetCriterion` and mmdet's heads ask of one.

    It takes logits (N, C) and labels (N,), C for background, or, derived from ``QualityFocalLoss``, labels and the
    matched boxes' quality. Each prediction's loss is its own, finite and not negative, whatever the logits and however
    many rows there are; a sure and right prediction costs nothing; the class of a well placed box is pushed up and all
    others down; ``weight``, ``avg_factor``, ``reduction_override`` and ``loss_weight`` are mmdet's; inputs stay as they
    are.

    Args:
        part: the config, or a built loss.
        num_classes: number of classes, C.

    Raises:
        LawError: a law is broken.
        InputError: the config is wrong.
    """
    subject = Subject(part)
    law = 'each class has a sigmoid of its own, as decoders give no logit for "no object"'
    subject.hold(getattr(subject.training(), 'use_sigmoid', True) is not False, law, 'use_sigmoid=False')
    labels = torch.arange(ROWS) % (num_classes + 1)
    with subject.running("it is called as mmdet's classification losses are"):
        _check_rows(subject, torch.randn(ROWS, num_classes), labels, torch.rand(ROWS))
        _check_reduction(subject, torch.randn(ROWS, num_classes), labels, torch.rand(ROWS))
        _check_values(subject, labels, labels[:, None] == torch.arange(num_classes))


def _loss(loss_cls: Any, logits: Tensor, labels: Tensor, quality: Tensor, *weight: Tensor, **settings: Any) -> Tensor:
    return loss_cls(logits, (labels, quality) if takes_quality(loss_cls) else labels, *weight, **settings)


def _rows(subject: Subject, logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
    """Each prediction's loss (N,)."""
    loss, number = _loss(subject.part, logits, labels, quality, reduction_override='none'), logits.shape[0]
    law = f"reduction_override='none' gives one loss for each of {number} predictions"
    subject.hold(loss.dim() and loss.shape[0] == number, law, f'shape {tuple(loss.shape)}')
    rows = loss.flatten(1).sum(1) if loss.dim() > 1 else loss
    subject.tensor('the loss', rows, (number,))
    return rows


def _check_rows(subject: Subject, *inputs: Tensor) -> None:
    before = [x.clone() for x in inputs]
    rows, law = _rows(subject, *inputs), "a prediction's loss depends on no other"
    subject.hold(all(map(torch.equal, inputs, before)), 'inputs stay as they are', 'others')
    subject.hold((rows >= 0).all(), 'no loss is below 0', f'{float(rows.min()):.3g}')
    for chosen in (torch.randperm(ROWS), torch.arange(3), torch.arange(1), torch.arange(0)):
        subject.equal(law, {'loss': _rows(subject, *(x[chosen] for x in inputs))}, {'loss': rows[chosen]})


def _check_reduction(subject: Subject, *inputs: Tensor) -> None:
    rows, weight, part = _rows(subject, *inputs), torch.rand(ROWS), subject.part
    actual = {
        'sum': _loss(part, *inputs, reduction_override='sum'),
        'sum by weight': _loss(part, *inputs, weight, reduction_override='sum'),
        'mean by avg_factor': _loss(part, *inputs, avg_factor=4.0, reduction_override='mean'),
    }
    expected = {'sum': rows.sum(), 'sum by weight': (rows * weight).sum(), 'mean by avg_factor': rows.sum() / 4}
    subject.equal("reduction_override, weight and avg_factor are mmdet's", actual, expected)
    own, law = getattr(part, 'loss_weight', None), 'loss_weight is a number that multiplies the loss'
    subject.hold(isinstance(own, (int, float)), law, repr(own))
    if subject.config is not None and own:
        threefold = _loss(subject.build(loss_weight=3 * own), *inputs, reduction_override='sum')
        subject.equal(law, {'loss': threefold}, {'loss': 3 * rows.sum()})


def _check_values(subject: Subject, labels: Tensor, is_label: Tensor) -> None:
    ones = torch.ones(ROWS)
    for size in (20.0, 1e4):
        right = torch.where(is_label, size, -size)
        rows = _rows(subject, right, labels, ones)
        subject.hold((rows < 1e-3).all(), 'a sure and right prediction costs nothing', f'{float(rows.max()):.3g}')
        for quality in (0.0, 1.0):
            logits = (-right).requires_grad_()
            (gradient,) = torch.autograd.grad(_rows(subject, logits, labels, ones * quality).sum(), logits)
            subject.tensor('the gradient of a sure and wrong prediction', gradient, logits.shape)
    logits = torch.zeros(is_label.shape, requires_grad=True)
    (gradient,) = torch.autograd.grad(_rows(subject, logits, labels, ones).sum(), logits)
    law = 'the class of a well placed box is pushed up'
    subject.hold((gradient[is_label] < 0).all(), law, f'gradients {gradient[is_label].tolist()}')
    law = 'the other classes are pushed down'
    subject.hold((gradient[~is_label] > 0).all(), law, f'a gradient of {float(gradient[~is_label].min()):.3g}')

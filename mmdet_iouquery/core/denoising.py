"""Denoising queries (DN-DETR section 4; contrastive: DINO section 3.3): their layout and their noise.

Nobody else needs to know how groups lie in the sequence: :func:`denoising_layout` gives the index of every query's
ground truth, the attention mask, and the pairs that the loss uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh, inverse_sigmoid


@dataclass(frozen=True)
class DenoisingLayout:
    """Where each denoising query comes from. G groups of S positives and, if contrastive, S negatives after them.

    S is the largest number of boxes in an image, at least 1; images with fewer boxes have padding slots, so P = 2 * S
    * G queries an image, or S * G.
    """

    num_groups: int
    truth: Tensor
    """(B, P) int64, index into the batch's ground truth; 0 where padded."""
    padded: Tensor
    """(B, P) bool, slots without a ground truth."""
    negative: Tensor
    """(P,) bool, the queries that must learn to be background."""
    pairs: tuple[Tensor, Tensor, Tensor]
    """image, query and ground-truth index of the positives, each (M,) int64."""

    @property
    def num_denoising(self) -> int:
        """P, the number of denoising queries of an image."""
        return self.truth.shape[1]

    def to(self, device: torch.device | str | None) -> DenoisingLayout:
        """The same on another device; None: as it is."""
        image, query, truth = (index.to(device) for index in self.pairs)
        return DenoisingLayout(
            self.num_groups,
            self.truth.to(device),
            self.padded.to(device),
            self.negative.to(device),
            (image, query, truth),
        )

    def attention_mask(self, num_queries: int) -> Tensor:
        """(P + Q, P + Q) bool, True = may not attend: no group sees another, and no matching query sees any group."""
        total = self.num_denoising + num_queries
        group = torch.full((total,), self.num_groups, device=self.truth.device)
        group[: self.num_denoising] = torch.arange(self.num_denoising, device=group.device) // (
            self.num_denoising // self.num_groups
        )
        mask = group[:, None] != group[None, :]
        mask[: self.num_denoising, self.num_denoising :] = False
        return mask


def _slots(counts: Sequence[int], limit: int) -> tuple[Tensor, Tensor]:
    """Ground-truth index (B, S) and padding mask (B, S); an image over ``limit`` boxes gives some of them."""
    width = max(1, min(max(counts, default=0), limit))
    truth = torch.zeros(len(counts), width, dtype=torch.long)
    padded = torch.ones(len(counts), width, dtype=torch.bool)
    start = 0
    for image, count in enumerate(counts):
        chosen = torch.arange(count) if count <= limit else torch.randperm(count)[:limit].sort().values
        truth[image, : chosen.shape[0]] = start + chosen
        padded[image, : chosen.shape[0]] = False
        start += count
    return truth, padded


def check_groups(num_denoising: int, num_groups: int | None) -> None:
    """Raise ValueError where ``num_denoising`` is below 1, or ``num_groups`` outside [1, num_denoising]."""
    if num_denoising < 1:
        raise ValueError(f'num_denoising must be at least 1, got {num_denoising}; set denoising=None to do without')
    if num_groups is not None and not 1 <= num_groups <= num_denoising:
        raise ValueError(f'num_groups must lie in [1, num_denoising={num_denoising}], got {num_groups}')


def denoising_layout(
    counts: Sequence[int],
    num_denoising: int,
    *,
    contrastive: bool = True,
    num_groups: int | None = None,
    device: torch.device | str | None = None,
) -> DenoisingLayout:
    """Lay out groups so that there are about ``num_denoising`` positives, and at most as many negatives.

    Never more than that: an image with more boxes than there is room for gives a random choice of them. A batch without
    any box has one group of padding, so that the same parameters take part in every step.

    Args:
        counts: number of ground-truth boxes of each image.
        num_denoising: positives to aim at, at least 1.
        contrastive: with negatives.
        num_groups: the number of groups, at most ``num_denoising``; None: as many as there is room for.

    Raises:
        ValueError: ``num_denoising`` is below 1, or ``num_groups`` outside [1, num_denoising].
    """
    check_groups(num_denoising, num_groups)
    truth, padded = _slots(counts, num_denoising // (num_groups or 1))
    width = truth.shape[1]
    groups = (num_groups or max(1, num_denoising // width)) if any(counts) else 1
    parts = 2 if contrastive else 1
    truth, padded = truth.repeat(1, parts * groups), padded.repeat(1, parts * groups)
    negative = (torch.arange(truth.shape[1]) // width) % parts == 1
    image, query = torch.nonzero(~padded & ~negative, as_tuple=True)
    # laid out on the host, where sizes that depend on the data make nobody wait
    return DenoisingLayout(groups, truth, padded, negative, (image, query, truth[image, query])).to(device)


def noisy_truth(
    layout: DenoisingLayout,
    labels: Tensor,
    boxes: Tensor,
    num_classes: int,
    *,
    label_noise_ratio: float = 0.5,
    box_noise_scale: float = 1.0,
    box_noise: str = 'corners',
) -> tuple[Tensor, Tensor]:
    """Draw noisy labels and boxes for a layout.

    A label is replaced by a random class with probability ``label_noise_ratio / 2``.

    Args:
        labels: (T,) int64. boxes: (T, 4), of the whole batch.
        box_noise_scale: how far boxes move; 0: not at all.
        box_noise: 'corners', each corner coordinate moves by up to ``box_noise_scale`` half sizes of the box, negatives
            by one to two times as much (DINO, figure 4); 'centre_size', the centre moves by up to as much and each
            side grows or shrinks by up to ``box_noise_scale`` of itself (DN-DETR, section 4.2), without negatives. In
            both the box is kept inside the image.

    Returns:
        labels (B, P), ``num_classes`` where padded; boxes_unact (B, P, 4), logits of cx, cy, w, h.
    """
    if labels.shape[0] == 0:
        labels, boxes = labels.new_zeros(1), boxes.new_zeros(1, 4)
    noisy_labels, noisy_boxes = labels[layout.truth], boxes[layout.truth]
    if label_noise_ratio > 0:
        flip = torch.rand(noisy_labels.shape, device=labels.device) < 0.5 * label_noise_ratio
        noisy_labels = torch.where(flip, torch.randint_like(noisy_labels, num_classes), noisy_labels)
    if box_noise_scale > 0:
        move = torch.rand_like(noisy_boxes) + layout.negative[None, :, None]
        move = box_noise_scale * move * (torch.randint_like(noisy_boxes, 2) * 2 - 1)
        size = noisy_boxes[..., 2:]
        if box_noise == 'corners':
            corners = box_cxcywh_to_xyxy(noisy_boxes) + move * 0.5 * size.repeat(1, 1, 2)
        else:
            corners = box_cxcywh_to_xyxy(noisy_boxes + move * torch.cat([0.5 * size, size], dim=-1))
        noisy_boxes = box_xyxy_to_cxcywh(corners.clamp(0, 1))
    noisy_boxes = noisy_boxes.masked_fill(layout.padded.unsqueeze(-1), 0.0)
    return noisy_labels.masked_fill(layout.padded, num_classes), inverse_sigmoid(noisy_boxes)


def first_group(
    pairs: tuple[Tensor, Tensor, Tensor], num_denoising: int, num_groups: int
) -> tuple[slice, Tensor, Tensor]:
    """Of a batch of one image with boxes, the S queries of the first group: the boxes' positives, then any negatives.

    Args:
        pairs: of the positives, as :class:`DenoisingLayout` has them.

    Returns:
        Where they stand; the ground truth (S,) that each was made from; and whether (S,) it is a positive.
    """
    size = num_denoising // num_groups
    _, query, truth = (index[pairs[1] < size] for index in pairs)
    positive = torch.zeros(size, dtype=torch.bool, device=query.device)
    positive[query] = True
    return slice(size), truth.repeat(size // query.shape[0]), positive

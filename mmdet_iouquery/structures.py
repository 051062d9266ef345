"""What the parts of a detector hand to each other. Letters as in :mod:`mmdet_iouquery.core`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Memory(NamedTuple):
    """What queries read: the neck's maps as one sequence."""

    tokens: Tensor
    """(B, N, D), finest level first, each row by row."""
    spatial_shapes: tuple[tuple[int, int], ...]
    """Height and width of each level in tokens: plain numbers."""
    padding: Tensor | None = None
    """(B, N) bool, tokens whose centre lies beyond the image, in what a batch was padded with; None: there are none."""
    extent: Tensor | None = None
    """(B, 2) in (0, 1], the part of the maps' width and height that boxes refer to, from the upper left corner: what
    the image covers of a padded input, where boxes are normalised by the image; None: boxes refer to the whole maps."""
    position: Tensor | None = None
    """(B, N, D), position codes of the tokens; None: a decoder that needs some makes its own."""


class Queries(NamedTuple):
    """Queries as the decoder takes them."""

    content: Tensor
    """(B, Q, D)."""
    anchors_unact: Tensor
    """(B, Q, 4), logits of cx, cy, w, h."""
    position: Tensor | None = None
    """(B, Q, D), learned position codes, added to the code that the decoder makes of the anchors; None: there are
    none."""

    def after(self, first: Queries) -> Queries:
        """``first``, then these, as one sequence."""
        content, anchors_unact = (torch.cat(pair, dim=1) for pair in zip(first[:2], self[:2]))
        if first.position is None and self.position is None:
            return Queries(content, anchors_unact)
        positions = [torch.zeros_like(q.content) if q.position is None else q.position for q in (first, self)]
        return Queries(content, anchors_unact, torch.cat(positions, dim=1))

    def at(self, encoded_anchors: Tensor) -> Tensor:
        """Position codes (B, Q, D): ``encoded_anchors`` (B, Q, D) and, where there are some, the learned ones."""
        return encoded_anchors if self.position is None else encoded_anchors + self.position


class Predictions(NamedTuple):
    """Class logits and boxes of L layers."""

    logits: Tensor
    """(L, B, Q, C)."""
    boxes: Tensor
    """(L, B, Q, 4), normalised cx, cy, w, h."""


class Selection(NamedTuple):
    """A selector's answer."""

    queries: Queries
    """Detached from the encoder where the reference detaches them."""
    encoder: Predictions | None = None
    """The encoder's own prediction for each selected token, L = 1, for its loss; None: the selector has none."""
    token_index: Tensor | None = None
    """(B, Q) int64, the tokens chosen; None: the queries come from no token."""
    iou_aware: bool | None = None
    """Whether the encoder's class scores are to learn the IoU of their boxes, or the label alone; None: what the
    decoder's learn."""
    class_agnostic: bool = False
    """Whether the encoder tells objects from background only, by class 0 (Deformable DETR's two stages)."""
    iou_logits: Tensor | None = None
    """(1, B, Q), the encoder's own prediction of its boxes' IoU; None: it makes none."""


class Targets(NamedTuple):
    """Ground truth of a batch, the images' boxes one after the other."""

    labels: Tensor
    """(T,) int64."""
    boxes: Tensor
    """(T, 4), normalised cx, cy, w, h."""
    counts: tuple[int, ...]
    """Number of boxes of each image."""

    @property
    def image(self) -> Tensor:
        """(T,) int64, the image of each box."""
        counts = torch.tensor(self.counts)
        return torch.repeat_interleave(torch.arange(len(self.counts)), counts).to(self.labels.device)


class Pairs(NamedTuple):
    """Which prediction answers for which ground truth: the only currency between matching and losses. (M,) int64."""

    layer: Tensor
    image: Tensor
    query: Tensor
    truth: Tensor


class DenoisingQueries(NamedTuple):
    """A denoising generator's answer: P extra queries an image, to stand before the matching ones."""

    queries: Queries
    attention_mask: Tensor
    """(P + Q, P + Q) bool, True = may not attend."""
    pairs: tuple[Tensor, Tensor, Tensor]
    """image, query and ground truth of the positives, each (M,), the same for every layer."""
    num_groups: int
    """How often each ground truth occurs among the positives: the losses are divided by it."""


class Decoded(NamedTuple):
    """One run of a head's or host's parts over a batch."""

    memory: Memory
    selection: Selection
    denoising: DenoisingQueries | None
    """Only in training, and only where there is a generator."""
    predictions: Predictions
    """Of all decoder layers in training, otherwise of the last, over the P denoising queries and the Q others."""


class DenseAttention(NamedTuple):
    """Where queries look that attend to every token."""

    weights: Tensor
    """(B, H, Q, N), each query's sum to 1 over the tokens."""


class SampledAttention(NamedTuple):
    """Where queries look that read P points a head and level, V levels."""

    locations: Tensor
    """(B, Q, H, V, P, 2), x and y, [0, 1] from a map's outer edge to the other; points may lie outside."""
    weights: Tensor
    """(B, Q, H, V, P), each query's and head's sum to 1 over levels and points."""

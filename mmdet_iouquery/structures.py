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


class Queries(NamedTuple):
    """Queries as the decoder takes them."""

    content: Tensor
    """(B, Q, D)."""
    anchors_unact: Tensor
    """(B, Q, 4), logits of cx, cy, w, h."""

    def after(self, first: Queries) -> Queries:
        """``first``, then these, as one sequence."""
        return Queries(*(torch.cat(pair, dim=1) for pair in zip(first, self)))


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
    encoder: Predictions | None
    """The encoder's own prediction for each selected token, L = 1, for its loss; None: the selector has none."""
    token_index: Tensor | None
    """(B, Q) int64, the tokens chosen; None: the queries come from no token."""


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
    """Which prediction answers for which ground truth: the only currency between matching and losses. Each (M,)."""

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

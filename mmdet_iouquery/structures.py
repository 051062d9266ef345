"""What the parts of a detector hand to each other, and the protocol of each kind of part.

To a type checker the call of mmengine's modules is anything, and so are they: what it holds against a protocol is a
part's ``forward``, in ``tests/test_models/test_protocols.py``.

Letters as in :mod:`mmdet_iouquery.core`; P denoising queries and Q matching ones make up the decoder's sequence, the
denoising ones first. Where the one kind ends and the other begins is known here alone. R + 1 bins of a distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

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
    maps: tuple[Tensor, ...] | None = None
    """(B, D, h, w) each, the tokens as the levels that they came from, kept where a graph is made; None: not kept."""


class Queries(NamedTuple):
    """Queries as the decoder takes them."""

    content: Tensor
    """(B, Q, D)."""
    anchors_unact: Tensor
    """(B, Q, 4), logits of cx, cy, w, h."""
    position: Tensor | None = None
    """(B, Q, D), learned position codes, added to the code that the decoder makes of the anchors; None: there are
    none."""
    num_denoising: int = 0
    """P, how many at the front are denoising queries; these have no learned position codes, but zeros."""

    @property
    def num_queries(self) -> int:
        """All of them."""
        return self.content.shape[1]

    def after(self, first: Queries) -> Queries:
        """``first``, then these, as one sequence."""
        content, anchors_unact = (torch.cat(pair, dim=1) for pair in zip(first[:2], self[:2]))
        if first.position is None and self.position is None:
            return Queries(content, anchors_unact)
        positions = [torch.zeros_like(q.content) if q.position is None else q.position for q in (first, self)]
        return Queries(content, anchors_unact, torch.cat(positions, dim=1))

    def split(self, num_first: int | None = None) -> tuple[Queries, Queries]:
        """The first queries and the others; None: the denoising queries and the matching ones."""
        num_first = self.num_denoising if num_first is None else num_first
        pairs = [(None, None) if x is None else (x[:, :num_first], x[:, num_first:]) for x in self[:3]]
        first, others = zip(*pairs)
        return Queries(*first), Queries(*others)

    def position_codes(self, encoded_anchors: Tensor) -> Tensor:
        """(B, Q, D): ``encoded_anchors`` (B, Q, D) and, where there are some, the learned ones."""
        return encoded_anchors if self.position is None else encoded_anchors + self.position


class Refinement(NamedTuple):
    """What predictions were refined from, as distributions of each box's edges (D-FINE, section 4.1)."""

    corners: Tensor
    """(L, B, Q, 4, R + 1), logits of the distances of left, top, right and bottom edge, after each layer."""
    initial_logits: Tensor
    """(1, B, Q, C), class logits of the first layer's own head."""
    initial_boxes: Tensor
    """(1, B, Q, 4), normalised cx, cy, w, h: the first layer's boxes, which all layers refine, without a gradient."""
    bin_values: Tensor
    """(R + 1,), the distance that each bin stands for, in units of the initial box's width or height over the scale."""
    reg_scale: float
    """The scale: of how many units an initial box is."""

    def of(self, corners: Tensor, initial_logits: Tensor, initial_boxes: Tensor) -> Refinement:
        """By the same bins, of other queries."""
        return self._replace(corners=corners, initial_logits=initial_logits, initial_boxes=initial_boxes)


class Predictions(NamedTuple):
    """Class logits and boxes of L layers."""

    logits: Tensor
    """(L, B, Q, C)."""
    boxes: Tensor
    """(L, B, Q, 4), normalised cx, cy, w, h."""
    refinement: Refinement | None = None
    """In training, of a decoder that refines distributions; None: of others."""

    def apply(self, change: Callable[[Tensor], Tensor]) -> Predictions:
        """With every tensor (., B, Q, ...) changed."""
        refinement = self.refinement and self.refinement.of(*map(change, self.refinement[:3]))
        return Predictions(change(self.logits), change(self.boxes), refinement)

    def split(self, num_first: int) -> tuple[Predictions, Predictions]:
        """Those of the first queries, and of the others."""
        return self.apply(lambda x: x[:, :, :num_first]), self.apply(lambda x: x[:, :, num_first:])

    def before(self, others: Predictions) -> Predictions:
        """These queries' predictions, then the others'."""
        logits, boxes = (torch.cat(pair, dim=2) for pair in zip(self[:2], others[:2]))
        if self.refinement is None or others.refinement is None:
            return Predictions(logits, boxes)
        joined = [torch.cat(pair, dim=2) for pair in zip(self.refinement[:3], others.refinement[:3])]
        return Predictions(logits, boxes, self.refinement.of(*joined))

    def layers_before(self, others: Predictions) -> Predictions:
        """The logits and boxes of these layers, then those of the others, of the same queries."""
        logits, boxes = (torch.cat(pair) for pair in zip(self[:2], others[:2]))
        return Predictions(logits, boxes)

    def with_initial(self) -> Predictions:
        """The initial prediction as one more layer after the last, where there is one."""
        if self.refinement is None:
            return self
        return self.layers_before(Predictions(self.refinement.initial_logits, self.refinement.initial_boxes))


class EncoderTarget(NamedTuple):
    """What the scores of a selector's encoder are trained to be: what makes a selection IoU-aware, or not."""

    score: Literal['iou', 'label'] | None = None
    """Of the matched class: the IoU of the box, or 1; None: what the decoder's scores learn."""
    class_agnostic: bool = False
    """Whether objects are told from background only, by class 0 (Deformable DETR's two stages)."""
    iou_logits: Tensor | None = None
    """(1, B, Q), a prediction of the boxes' IoU apart from the class scores, trained to be it; None: there is none."""

    def targets(self, targets: Targets) -> Targets:
        """The ground truth as the encoder is to tell it."""
        return targets._replace(labels=torch.zeros_like(targets.labels)) if self.class_agnostic else targets


class Selection(NamedTuple):
    """A selector's answer."""

    queries: Queries
    """Detached from the encoder where the reference detaches them."""
    encoder: Predictions | None = None
    """The encoder's own prediction for each selected token, L = 1, for its loss; None: the selector has none."""
    token_index: Tensor | None = None
    """(B, Q) int64, the tokens chosen; None: the queries come from no token."""
    encoder_target: EncoderTarget = EncoderTarget()
    """What the encoder's predictions learn."""


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
        return self.image_on_host.to(self.labels.device)

    @property
    def image_on_host(self) -> Tensor:
        """The same, where pairs are worked out."""
        return torch.repeat_interleave(torch.arange(len(self.counts)), torch.tensor(self.counts))


class Pairs(NamedTuple):
    """Which prediction answers for which ground truth: the only currency between matching and losses. (M,) int64."""

    layer: Tensor
    image: Tensor
    query: Tensor
    truth: Tensor

    @classmethod
    def of_layers(cls, num_layers: int, image: Tensor, query: Tensor, truth: Tensor) -> Pairs:
        """The pairs of one layer, repeated for all."""
        layer = torch.arange(num_layers, device=image.device).repeat_interleave(image.shape[0])
        return cls(layer, *(index.repeat(num_layers) for index in (image, query, truth)))

    def first_layers(self, number: int) -> Pairs:
        """Those of so many layers."""
        rows = self.layer < number
        return Pairs(*(index[rows] for index in self))

    def layers_from(self, first: int) -> Pairs:
        """Those of the layers from this one on, which then count from 0."""
        rows = self.layer >= first
        layer, *others = (index[rows] for index in self)
        return Pairs(layer - first, *others)

    def to(self, device: torch.device) -> Pairs:
        """The same on another device, in one transfer."""
        return Pairs(*torch.stack(self).to(device, non_blocking=True).unbind())

    @property
    def predicted(self) -> tuple[Tensor, Tensor, Tensor]:
        """What indexes predictions (L, B, Q, ...)."""
        return self.layer, self.image, self.query


class DenoisingQueries(NamedTuple):
    """A denoising generator's answer: P extra queries an image, to stand before the matching ones."""

    queries: Queries
    attention_mask: Tensor
    """(P + Q, P + Q) bool, True = may not attend."""
    pairs: tuple[Tensor, Tensor, Tensor]
    """image, query and ground truth of the positives, each (M,), the same for every layer."""
    num_groups: int
    """How often each ground truth occurs among the positives: the losses are divided by it."""

    def before(self, matching: Queries) -> Queries:
        """The decoder's sequence of P + Q queries."""
        return matching.after(self.queries)._replace(num_denoising=self.queries.num_queries)


class Decoded(NamedTuple):
    """One run of a head's or host's parts over a batch."""

    memory: Memory
    selection: Selection
    denoising: DenoisingQueries | None
    """Only in training, and only where there is a generator."""
    predictions: Predictions
    """Of all decoder layers in training, otherwise of the last, over P + Q queries."""

    @property
    def num_denoising(self) -> int:
        """P; 0: there are no denoising queries."""
        return 0 if self.denoising is None else self.denoising.queries.num_queries

    @property
    def num_matching(self) -> int:
        """Q."""
        return self.predictions.logits.shape[2] - self.num_denoising

    def split(self, predictions: Predictions | None = None) -> tuple[Predictions, Predictions]:
        """(L, B, P, ...) of the denoising queries and (L, B, Q, ...) of the matching ones.

        Args:
            predictions: (L, B, P + Q, ...), others of the same queries; None: those that were decoded.
        """
        return (predictions or self.predictions).split(self.num_denoising)

    @property
    def denoising_predictions(self) -> Predictions:
        """(L, B, P, ...)."""
        return self.split()[0]

    @property
    def matching_predictions(self) -> Predictions:
        """(L, B, Q, ...)."""
        return self.split()[1]

    @property
    def denoising_slice(self) -> slice:
        """Where the denoising queries stand in the decoder's sequence: first."""
        return slice(0, self.num_denoising)

    @property
    def matching_slice(self) -> slice:
        """Where the matching queries stand in the decoder's sequence."""
        return slice(self.num_denoising, self.predictions.logits.shape[2])

    @property
    def matching_index(self) -> Tensor:
        """(Q,) int64, the same as numbers."""
        where = self.matching_slice
        return torch.arange(where.start, where.stop, device=self.predictions.logits.device)

    def with_matching(self, matching: Predictions) -> Decoded:
        """The same, but for these predictions (L, B, Q', ...) of the matching queries."""
        return self._replace(predictions=self.denoising_predictions.before(matching))


class QuerySelector(Protocol):
    """Chooses or holds the queries that the decoder starts from.

    One that chooses among the tokens says so by ``selects_tokens = True`` on its class, gives ``token_index``, best
    token first, and has the attribute ``num_queries``, the number as built. DDQ's NMS, ``train --log`` and files of any
    size go by it. One whose anchors say nothing of where objects are has ``has_anchors = False``.
    """

    def __call__(self, memory: Memory, num_queries: int | None = None) -> Selection:
        """Q queries for each image of the memory.

        Args:
            num_queries: Q, on the same weights; None: as built. Of a memory of fewer tokens all become queries, where
                queries come from tokens.

        Raises:
            ValueError: more than have been learned, where something of them is.
        """


class DenoisingGenerator(Protocol):
    """Makes queries of ground truth that the decoder must restore."""

    def __call__(self, targets: Targets, num_queries: int) -> DenoisingQueries:
        """P queries for each image, to stand before ``num_queries`` matching ones."""


class Decoder(Protocol):
    """Turns queries into predictions, layer by layer; the class and box heads are its own."""

    def __call__(
        self,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        """Decode S queries.

        Args:
            attention_mask: (S, S) bool, True = may not attend.
            num_layers: how many layers to run, from the first; negative: counted back from the last (-1: all); None:
                all.

        Returns:
            In training every layer's predictions (L, B, S, ...), in prediction those of the last layer run (L = 1).

        Raises:
            ValueError: there are not so many layers, or the memory has another number of levels than can be read.
        """


class Assigner(Protocol):
    """Matches predictions with ground truth, one to one in every layer."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Pairs:
        """Pairs of all layers of the predictions (L, B, Q, ...), sorted by layer.

        On the host, where they are worked out, and where they can be counted without waiting for the device.
        """


class Criterion(Protocol):
    """Matches, and computes the losses of decoder, encoder and denoising.

    A method ``check_decoder(decoder)``, where there is one, is called when the detector is built, and raises
    :class:`InputError` for a decoder whose predictions it cannot compare.
    """

    def __call__(self, decoded: Decoded, targets: Targets) -> dict[str, Tensor]:
        """Scalars to be added up, under mmdet's names, which do not depend on the ground truth."""

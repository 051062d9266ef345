"""DETR's set criterion: match, then classification, box and IoU losses over the pairs, each once for all layers.

Letters as in :mod:`mmdet_iouquery.core`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ...argument_checks import check_choice, check_flags
from ...core import OVERLAPS, as_float, box_cxcywh_to_xyxy, union_pairs
from ...errors import InputError
from ...structures import Assigner, Decoded, EncoderTarget, Pairs, Predictions, Targets
from .blocks import Block, MatchedBoxes, named, query_sums
from .edge_losses import edge_losses


class Matches(NamedTuple):
    """What answers for what, on the host."""

    own: Pairs
    """Each decoder layer's matching, that of the initial prediction last, where there is one."""
    encoder: Pairs | None
    """The encoder's; None: it predicts nothing."""
    union: Pairs | None = None
    """One layer: the pairs that all matchings vote for; None: boxes learn by each layer's own matching."""
    encoder_shares: bool = False
    """Whether the encoder's predictions are of the same queries, so that they vote and learn by the union too."""


class Divisors(NamedTuple):
    """What sums are divided by."""

    boxes: Tensor
    """The number of ground-truth boxes."""
    union: Tensor
    """The number of pairs of the union."""


@MODELS.register_module()
class SetCriterion(nn.Module):
    """DETR's set prediction loss. Any classification, box and IoU loss of mmdet can be named.

    A ``loss_cls`` derived from ``QualityFocalLoss`` (:class:`IoUVarifocalLoss` among them) is given the matched box's
    quality as soft target; any other is given labels alone. All sums are divided by the number of ground-truth boxes,
    averaged over the processes and at least 1; for denoising also by the number of groups.

    The encoder's class scores learn what the selector's :class:`~mmdet_iouquery.structures.EncoderTarget` says.

    **Union matching** (D-FINE's and DEIM's code). Class scores learn by each layer's own matching. Boxes and edges of
    every layer, of the encoder and of the initial prediction learn by one set of pairs, for which all these matchings
    vote: each query has the ground truth it got most often, a ground truth may have several queries, and the sums are
    divided by the number of pairs.

    **Distributions.** A decoder that refines distributions of the boxes' edges also gives an initial prediction, which
    has the three losses too, and distributions for ``loss_fgl`` and ``loss_ddf`` (D-FINE, sections 4.1 and 4.2).

    The names are mmdet's: ``loss_cls``, ``loss_bbox``, ``loss_iou`` (``loss_fgl``, ``loss_ddf``) of the last layer,
    ``d0.loss_cls``, ... of the others, ``pre.loss_cls``, ... of the initial prediction, ``enc_loss_cls``, ... of the
    encoder, ``dn_loss_cls``, ``d0.dn_loss_cls`` and ``pre.dn_loss_cls``, ... of denoising, and ``enc_loss_quality`` of
    an encoder that predicts its IoU. They do not depend on the ground truth: a batch without boxes has the same ones.

    Args:
        assigner: matches predictions with ground truth.
        loss_cls, loss_bbox, loss_iou: the losses, by config or built; their ``loss_weight`` counts. ``loss_bbox``
            compares normalised ``cx, cy, w, h``, ``loss_iou`` normalised corners.
        encoder_loss_cls: the encoder's; None: ``loss_cls``, or, where that knows no soft targets and the selector is
            IoU-aware, ``IoUVarifocalLoss`` with the same weight.
        quality: the soft target: 'iou', 'giou', 'diou' or 'ciou' of the matched box, negative values counting as 0.
        union_matching: whether boxes and edges learn by the union of all matchings.
        loss_fgl, loss_ddf: of the edges' distributions, as :class:`FineGrainedLocalizationLoss` and
            :class:`DistributionDistillationLoss`; None: without.

    Raises:
        ValueError: an unknown ``quality``, or a ``loss_cls`` with a softmax.
    """

    def __init__(
        self,
        *,
        assigner: Any,
        loss_cls: Any,
        loss_bbox: Any,
        loss_iou: Any,
        encoder_loss_cls: Any = None,
        quality: str = 'iou',
        union_matching: bool = False,
        loss_fgl: Any = None,
        loss_ddf: Any = None,
    ) -> None:
        super().__init__()
        check_choice(list(OVERLAPS), quality=quality)
        check_flags(union_matching=union_matching)
        self.quality = quality
        self.union_matching = union_matching
        self.assigner: Assigner = TASK_UTILS.build(assigner) if isinstance(assigner, dict) else assigner
        self.loss_cls = _built('loss_cls', loss_cls)
        _check_sigmoid(self.loss_cls)
        self.loss_bbox = _built('loss_bbox', loss_bbox)
        self.loss_iou = _built('loss_iou', loss_iou)
        self.loss_fgl = None if loss_fgl is None else _built('loss_fgl', loss_fgl)
        self.loss_ddf = None if loss_ddf is None else _built('loss_ddf', loss_ddf)
        self.encoder_loss_cls = _built('encoder_loss_cls', encoder_loss_cls or self.loss_cls)
        self.soft_encoder_loss_cls = self.encoder_loss_cls
        if encoder_loss_cls is None and not takes_quality(self.loss_cls):
            varifocal = {'type': 'IoUVarifocalLoss', 'loss_weight': self.loss_cls.loss_weight}
            self.soft_encoder_loss_cls = _built('encoder_loss_cls', varifocal)

    def check_decoder(self, decoder: object) -> None:
        """Raise :class:`InputError` where losses are of distributions and the decoder is known to refine none."""
        if self._of_distributions and not getattr(decoder, 'refines_distributions', False):
            raise InputError(
                'loss_fgl and loss_ddf are of the distributions of a DistributionDecoder, and the decoder is '
                f"{type(decoder).__name__}: name decoder=dict(type='DistributionDecoder'), or leave the two losses out"
            )

    @property
    def _of_distributions(self) -> bool:
        return self.loss_fgl is not None or self.loss_ddf is not None

    def forward(self, decoded: Decoded, targets: Targets) -> dict[str, Tensor]:
        """All losses, each a scalar, in single precision at least: half is too coarse for costs and losses."""
        predictions, selection = decoded.predictions.apply(as_float), decoded.selection
        encoder = None if selection.encoder is None else selection.encoder.apply(as_float)
        heads = _with_initial(predictions)
        matching = decoded.split(heads)[1].apply(Tensor.detach)
        matches = self._match(matching, encoder, selection.encoder_target, targets)
        divisors = _divisors(heads.logits, targets, matches.union)

        own, shared = _blocks(decoded, matches, divisors, heads.logits.shape[0])
        terms = self._three_losses(heads, own, shared, targets, self.loss_cls)
        if self._of_distributions:
            terms.update(self._edge_losses(predictions, decoded, matches, divisors, targets))
        losses = named(terms)
        if encoder is not None:
            losses.update(self._encoder_losses(encoder, selection.encoder_target, matches, divisors, targets))
        return losses

    def _match(
        self, matching: Predictions, encoder: Predictions | None, target: EncoderTarget, targets: Targets
    ) -> Matches:
        """Match the decoder's layers (L, B, Q, ...) and the encoder: in one call where they have as many queries."""
        if encoder is not None and target.class_agnostic:  # its score of an object is that of every class
            encoder = encoder._replace(logits=encoder.logits[..., :1].expand(-1, -1, -1, matching.logits.shape[-1]))
        if encoder is None:
            own, of_encoder = self.assigner(matching, targets), None
        elif encoder.logits.shape[1:] != matching.logits.shape[1:]:
            own, of_encoder = self.assigner(matching, targets), self.assigner(encoder, targets)
        else:
            pairs = self.assigner(matching.layers_before(encoder), targets)
            own, of_encoder = _without_last_layer(pairs, matching.logits.shape[0])
        if not self.union_matching:
            return Matches(own, of_encoder)
        shared = encoder is not None and encoder.boxes.shape[1:] == matching.boxes.shape[1:]
        votes = [own, of_encoder] if shared and of_encoder is not None else [own]
        image, query, truth = (torch.cat(index) for index in list(zip(*votes))[1:])
        union = union_pairs(image, query, truth)
        return Matches(own, of_encoder, Pairs(torch.zeros_like(union[0]), *union), shared)

    def _three_losses(
        self,
        heads: Predictions,
        own: Sequence[Block],
        shared: Sequence[Block],
        targets: Targets,
        loss_cls: nn.Module,
        *,
        by_label: bool = False,
    ) -> dict[str, dict[str, Tensor]]:
        """Class, box and IoU losses by term and prefix.

        Args:
            own: the blocks that make up the queries, with the pairs that class scores learn by.
            shared: the same, with the pairs that boxes learn by.
            by_label: without soft targets.
        """
        matched = MatchedBoxes.of(own, heads.boxes, targets.boxes)
        compared = matched if shared is own else MatchedBoxes.of(shared, heads.boxes, targets.boxes)
        predicted_xyxy, truth_xyxy = box_cxcywh_to_xyxy(compared.predicted), box_cxcywh_to_xyxy(compared.truth)
        return {
            'loss_cls': self._class_losses(heads.logits, matched, targets.labels, loss_cls, by_label=by_label),
            'loss_bbox': compared.sums(_by_pair(self.loss_bbox, compared.predicted, compared.truth)),
            'loss_iou': compared.sums(_by_pair(self.loss_iou, predicted_xyxy, truth_xyxy)),
        }

    def _class_losses(
        self, logits: Tensor, matched: MatchedBoxes, labels: Tensor, loss_cls: nn.Module, *, by_label: bool
    ) -> dict[str, Tensor]:
        """By prefix, of logits (L, B, Q, C), which learn the pairs' labels and quality, or background."""
        target = torch.full(logits.shape[:-1], logits.shape[-1], dtype=torch.long, device=logits.device)
        target[matched.pairs.predicted] = labels[matched.pairs.truth]
        if not takes_quality(loss_cls):
            loss = loss_cls(logits.flatten(0, 2), target.flatten(), reduction_override='none')
        else:
            quality = logits.new_zeros(target.shape)
            quality[matched.pairs.predicted] = 1.0 if by_label else self._overlap(matched)
            loss = loss_cls(logits.flatten(0, 2), (target.flatten(), quality.flatten()), reduction_override='none')
        return query_sums(matched.blocks, loss.reshape(*target.shape, -1))

    def _overlap(self, matched: MatchedBoxes) -> Tensor:
        """The quality (M,) in [0, 1] of each pair's boxes, detached."""
        predicted_xyxy = box_cxcywh_to_xyxy(matched.predicted.detach())
        return OVERLAPS[self.quality](predicted_xyxy, box_cxcywh_to_xyxy(matched.truth)).clamp(0, 1)

    def _edge_losses(
        self, predictions: Predictions, decoded: Decoded, matches: Matches, divisors: Divisors, targets: Targets
    ) -> dict[str, dict[str, Tensor]]:
        """Losses of distributions by term and prefix; the initial prediction has none."""
        assert predictions.refinement is not None, 'check_decoder'
        _, blocks = _blocks(decoded, matches, divisors, predictions.logits.shape[0])
        return edge_losses(predictions, predictions.refinement, blocks, targets.boxes, self.loss_fgl, self.loss_ddf)

    def _encoder_losses(
        self, encoder: Predictions, target: EncoderTarget, matches: Matches, divisors: Divisors, targets: Targets
    ) -> dict[str, Tensor]:
        """Of the encoder's predictions, whose scores learn what its selector says."""
        assert matches.encoder is not None
        device, num_queries = encoder.logits.device, encoder.logits.shape[2]
        own = shared = [Block(['enc_'], num_queries, matches.encoder.to(device), divisors.boxes)]
        if matches.union is not None and matches.encoder_shares:
            shared = [Block(['enc_'], num_queries, matches.union.to(device), divisors.union)]
        loss_cls = self.soft_encoder_loss_cls if target.score == 'iou' else self.encoder_loss_cls
        encoder_targets, by_label = target.targets(targets), target.score == 'label'
        losses = named(self._three_losses(encoder, own, shared, encoder_targets, loss_cls, by_label=by_label))
        if target.iou_logits is not None:
            matched = MatchedBoxes.of(own, encoder.boxes, targets.boxes)
            logits = as_float(target.iou_logits)[matched.pairs.predicted]
            quality = F.binary_cross_entropy_with_logits(logits, self._overlap(matched), reduction='sum')
            losses['enc_loss_quality'] = quality / divisors.boxes
        return losses


def takes_quality(loss_cls: nn.Module) -> bool:
    """Whether a classification loss is given ``(labels, quality)``, as mmdet's heads tell; else labels alone."""
    return isinstance(loss_cls, QualityFocalLoss)


def _check_sigmoid(loss_cls: nn.Module) -> None:
    """Raise :class:`InputError` for a loss that needs a logit for "no object", which decoders do not give."""
    if getattr(loss_cls, 'use_sigmoid', True) is False:
        raise InputError(
            f'loss_cls={type(loss_cls).__name__} scores classes by a softmax, but decoders score each by a sigmoid: '
            "name a loss of sigmoids, such as dict(type='IoUVarifocalLoss') or dict(type='FocalLoss', use_sigmoid=True)"
        )


def _built(name: str, loss: Any) -> nn.Module:
    """The loss that an argument names by its config, or is."""
    if isinstance(loss, nn.Module):
        return loss
    if not isinstance(loss, dict):
        raise InputError(f"{name} must be a dict such as dict(type='L1Loss'), or a built loss, got {loss!r}")
    return MODELS.build(loss)


def _with_initial(predictions: Predictions) -> Predictions:
    """The initial prediction as one more layer after the last, where there is one."""
    if predictions.refinement is None:
        return predictions
    refinement = predictions.refinement
    return predictions.layers_before(Predictions(refinement.initial_logits, refinement.initial_boxes))


def _divisors(like: Tensor, targets: Targets, union: Pairs | None) -> Divisors:
    """Their means over the processes, at least 1."""
    num_boxes = float(targets.labels.shape[0])
    if union is None:
        divisor = reduce_mean(like.new_tensor(num_boxes)).clamp(min=1.0)
        return Divisors(divisor, divisor)
    numbers = like.new_tensor([num_boxes, float(union.query.shape[0])])
    return Divisors(*reduce_mean(numbers).clamp(min=1.0).unbind())


def _blocks(decoded: Decoded, matches: Matches, divisors: Divisors, num_layers: int) -> tuple[list[Block], list[Block]]:
    """The denoising queries, where there are some, and the matching ones.

    Once with the pairs that class scores learn by, and once with those that boxes learn by: the same list where they
    are the same.

    Args:
        num_layers: with the initial prediction, or without.
    """
    logits = decoded.predictions.logits
    prefixes = [*(f'd{i}.' for i in range(logits.shape[0] - 1)), '', 'pre.'][:num_layers]
    pairs = Pairs(*(index[matches.own.layer < num_layers] for index in matches.own)).to(logits.device)
    own = shared = [Block(prefixes, decoded.num_matching, pairs, divisors.boxes)]
    if matches.union is not None:
        pairs = _every_layer(matches.union.to(logits.device)[1:], num_layers)
        shared = [own[0]._replace(pairs=pairs, divisor=divisors.union)]
    if decoded.denoising is None:
        return own, shared
    noisy_prefixes = [f'{prefix}dn_' for prefix in prefixes]
    noisy_pairs = _every_layer(decoded.denoising.pairs, num_layers)
    noisy = Block(noisy_prefixes, decoded.num_denoising, noisy_pairs, divisors.boxes * decoded.denoising.num_groups)
    both = [noisy, *own]
    return both, both if shared is own else [noisy, *shared]


def _every_layer(pairs: Sequence[Tensor], num_layers: int) -> Pairs:
    """The pairs of one layer, by image, query and ground truth, repeated for all."""
    image, query, truth = (index.repeat(num_layers) for index in pairs)
    layer = torch.arange(num_layers, device=image.device).repeat_interleave(pairs[0].shape[0])
    return Pairs(layer, image, query, truth)


def _without_last_layer(pairs: Pairs, last: int) -> tuple[Pairs, Pairs]:
    """The pairs of the layers before the last, and the last's, as layer 0."""
    before, of_last = (Pairs(*(index[rows] for index in pairs)) for rows in (pairs.layer < last, pairs.layer == last))
    return before, of_last._replace(layer=of_last.layer - last)


def _by_pair(loss: nn.Module, matched: Tensor, truth: Tensor) -> Tensor:
    """(M,): each pair's loss, summed over what else there is."""
    if not matched.shape[0]:  # some of mmdet's losses give a scalar then; every layer stays in the graph
        return matched.sum(-1)
    return loss(matched, truth, reduction_override='none').reshape(matched.shape[0], -1).sum(-1)

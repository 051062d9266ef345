"""DETR's set criterion: match, then classification, box and IoU losses over the pairs, each once for all layers.

Which queries stand where, and under which names their losses go, is in :mod:`.blocks`; what D-FINE adds for the edges'
distributions in :mod:`.edge_losses`. Letters as in :mod:`mmdet_iouquery.core`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ...argument_checks import check_choice, check_flags
from ...core import OVERLAPS, as_float, box_cxcywh_to_xyxy, union_pairs
from ...errors import InputError
from ...structures import Assigner, Decoded, EncoderTarget, Pairs, Predictions, Targets
from .blocks import AvgFactors, Block, MatchedBoxes, decoder_blocks, named, query_sums
from .edge_losses import edge_losses
from .quality_losses import check_sigmoid, takes_quality


class Matches(NamedTuple):
    """What answers for what, on the host."""

    decoder: Pairs
    """Each layer's own matching, that of the initial prediction last, where there is one."""
    encoder: Pairs | None
    """The encoder's; None: it predicts nothing."""
    union: Pairs | None = None
    """One layer: the pairs that all matchings vote for; None: boxes learn by each layer's own matching."""
    encoder_votes: bool = False
    """Whether the encoder's predictions are of the same queries, so that they vote, and learn by the union too."""


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
        check_sigmoid(self.loss_cls)
        self.encoder_loss_cls = _built('encoder_loss_cls', encoder_loss_cls or self.loss_cls)
        self.soft_encoder_loss_cls = self.encoder_loss_cls
        if encoder_loss_cls is None and not takes_quality(self.loss_cls):
            varifocal = {'type': 'IoUVarifocalLoss', 'loss_weight': self.loss_cls.loss_weight}
            self.soft_encoder_loss_cls = _built('encoder_loss_cls', varifocal)
        self.loss_bbox = _built('loss_bbox', loss_bbox)
        self.loss_iou = _built('loss_iou', loss_iou)
        self.loss_fgl = None if loss_fgl is None else _built('loss_fgl', loss_fgl)
        self.loss_ddf = None if loss_ddf is None else _built('loss_ddf', loss_ddf)

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
        heads = predictions.with_initial()
        matching = decoded.split(heads)[1].apply(Tensor.detach)
        matches = self._match(matching, encoder, selection.encoder_target, targets)
        avg_factors = _avg_factors(heads.logits, targets, matches.union)

        own, shared = decoder_blocks(decoded, matches.decoder, matches.union, avg_factors, heads.logits.shape[0])
        terms = self._three_losses(heads, own, shared, targets, self.loss_cls)
        if self._of_distributions:  # of which the initial prediction has none
            num_layers = predictions.logits.shape[0]
            _, shared = decoder_blocks(decoded, matches.decoder, matches.union, avg_factors, num_layers)
            terms.update(edge_losses(predictions, shared, targets.boxes, self.loss_fgl, self.loss_ddf))
        losses = named(terms)
        if encoder is not None:
            losses.update(self._encoder_losses(encoder, selection.encoder_target, matches, avg_factors, targets))
        return losses

    def _match(
        self, matching: Predictions, encoder: Predictions | None, target: EncoderTarget, targets: Targets
    ) -> Matches:
        """Match the decoder's layers (L, B, Q, ...) and the encoder: in one call where they have as many queries."""
        num_layers, *shape, num_classes = matching.logits.shape
        if encoder is not None and target.class_agnostic:  # its score of an object is that of every class
            encoder = encoder._replace(logits=encoder.logits[..., :1].expand(-1, -1, -1, num_classes))
        if encoder is None:
            own, of_encoder = self.assigner(matching, targets), None
        elif encoder.logits.shape[1:] != (*shape, num_classes):
            own, of_encoder = self.assigner(matching, targets), self.assigner(encoder, targets)
        else:
            pairs = self.assigner(matching.layers_before(encoder), targets)
            own, of_encoder = pairs.first_layers(num_layers), pairs.layers_from(num_layers)
        if not self.union_matching:
            return Matches(own, of_encoder)
        votes = [own]
        if encoder is not None and of_encoder is not None and encoder.boxes.shape[1:3] == (*shape,):
            votes.append(of_encoder)
        image, query, truth = (torch.cat(index) for index in list(zip(*votes))[1:])
        union = union_pairs(image, query, truth)
        return Matches(own, of_encoder, Pairs(torch.zeros_like(union[0]), *union), encoder_votes=len(votes) > 1)

    def _three_losses(
        self,
        predictions: Predictions,
        own: Sequence[Block],
        shared: Sequence[Block],
        targets: Targets,
        loss_cls: nn.Module,
        score: str | None = None,
    ) -> dict[str, dict[str, Tensor]]:
        """Class, box and IoU losses by term and prefix.

        Args:
            own: the blocks that make up the queries, with the pairs that class scores learn by.
            shared: the same, with the pairs that boxes learn by.
            score: as in :class:`~mmdet_iouquery.structures.EncoderTarget`.
        """
        matched = MatchedBoxes.of(own, predictions.boxes, targets.boxes)
        compared = matched if shared is own else MatchedBoxes.of(shared, predictions.boxes, targets.boxes)
        return {
            'loss_cls': self._class_losses(predictions.logits, matched, targets.labels, loss_cls, score),
            'loss_bbox': self._box_losses(compared),
            'loss_iou': self._iou_losses(compared),
        }

    def _class_losses(
        self, logits: Tensor, matched: MatchedBoxes, labels: Tensor, loss_cls: nn.Module, score: str | None
    ) -> dict[str, Tensor]:
        """By prefix, of logits (L, B, Q, C), which learn the pairs' labels and quality, or background."""
        target = torch.full(logits.shape[:-1], logits.shape[-1], dtype=torch.long, device=logits.device)
        target[matched.pairs.predicted] = labels[matched.pairs.truth]
        if not takes_quality(loss_cls):
            loss = loss_cls(logits.flatten(0, 2), target.flatten(), reduction_override='none')
        else:
            quality = logits.new_zeros(target.shape)
            quality[matched.pairs.predicted] = 1.0 if score == 'label' else self._overlap(matched)
            loss = loss_cls(logits.flatten(0, 2), (target.flatten(), quality.flatten()), reduction_override='none')
        return query_sums(matched.blocks, loss.reshape(*target.shape, -1))

    def _box_losses(self, matched: MatchedBoxes) -> dict[str, Tensor]:
        """By prefix, of normalised ``cx, cy, w, h``."""
        return matched.sums(_by_pair(self.loss_bbox, matched.predicted, matched.truth))

    def _iou_losses(self, matched: MatchedBoxes) -> dict[str, Tensor]:
        """By prefix, of normalised corners."""
        predicted_xyxy, truth_xyxy = box_cxcywh_to_xyxy(matched.predicted), box_cxcywh_to_xyxy(matched.truth)
        return matched.sums(_by_pair(self.loss_iou, predicted_xyxy, truth_xyxy))

    def _overlap(self, matched: MatchedBoxes) -> Tensor:
        """The quality (M,) in [0, 1] of each pair's boxes, detached."""
        predicted_xyxy = box_cxcywh_to_xyxy(matched.predicted.detach())
        return OVERLAPS[self.quality](predicted_xyxy, box_cxcywh_to_xyxy(matched.truth)).clamp(0, 1)

    def _encoder_losses(
        self, encoder: Predictions, target: EncoderTarget, matches: Matches, avg_factors: AvgFactors, targets: Targets
    ) -> dict[str, Tensor]:
        """Of the encoder's predictions, whose scores learn what its selector says."""
        assert matches.encoder is not None
        device, queries = encoder.logits.device, slice(0, encoder.logits.shape[2])
        own = shared = [Block(['enc_'], queries, matches.encoder.to(device), avg_factors.num_boxes)]
        if matches.union is not None and matches.encoder_votes:
            shared = [Block(['enc_'], queries, matches.union.to(device), avg_factors.num_pairs)]
        loss_cls = self.soft_encoder_loss_cls if target.score == 'iou' else self.encoder_loss_cls
        losses = named(self._three_losses(encoder, own, shared, target.targets(targets), loss_cls, target.score))
        if target.iou_logits is not None:
            matched = MatchedBoxes.of(own, encoder.boxes, targets.boxes)
            logits = as_float(target.iou_logits)[matched.pairs.predicted]
            quality = F.binary_cross_entropy_with_logits(logits, self._overlap(matched), reduction='sum')
            losses['enc_loss_quality'] = quality / avg_factors.num_boxes
        return losses


def _built(name: str, loss: Any) -> nn.Module:
    """The loss that an argument names by its config, or is."""
    if isinstance(loss, nn.Module):
        return loss
    if not isinstance(loss, dict):
        raise InputError(f"{name} must be a dict such as dict(type='L1Loss'), or a built loss, got {loss!r}")
    return MODELS.build(loss)


def _avg_factors(like: Tensor, targets: Targets, union: Pairs | None) -> AvgFactors:
    num_boxes = float(targets.labels.shape[0])
    if union is None:
        mean = reduce_mean(like.new_tensor(num_boxes)).clamp(min=1.0)
        return AvgFactors(mean, mean)
    means = reduce_mean(like.new_tensor([num_boxes, float(union.query.shape[0])]))
    return AvgFactors(*means.clamp(min=1.0).unbind())


def _by_pair(loss: nn.Module, matched: Tensor, truth: Tensor) -> Tensor:
    """(M,): each pair's loss, summed over what else there is."""
    if not matched.shape[0]:  # some of mmdet's losses give a scalar then; every layer stays in the graph
        return matched.sum(-1)
    return loss(matched, truth, reduction_override='none').reshape(matched.shape[0], -1).sum(-1)

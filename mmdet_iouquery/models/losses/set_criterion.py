"""DETR's set criterion: match, then classification, box and IoU losses over the pairs, each once for all layers.

Letters as in :mod:`mmdet_iouquery.core`; S names of a term's losses, one a block of queries and layer.
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

from ...argument_checks import check_choice, check_numbers
from ...core import OVERLAPS, MatchCosts, as_float, box_cxcywh_to_xyxy, hungarian_pairs
from ...structures import Assigner, Decoded, DenoisingQueries, Pairs, Predictions, Selection, Targets


@TASK_UTILS.register_module()
class BatchedHungarianAssigner:
    """One-to-one matching of every layer and image at once, with RT-DETR's costs by default.

    Args:
        class_weight, bbox_weight, giou_weight: weights of the focal class cost, of the L1 distance of normalised
            ``cx, cy, w, h`` and of the negative GIoU.
        alpha, gamma: of the focal class cost.
    """

    same_number_each_layer = True
    """Pairs are sorted by layer, and each layer has as many."""

    def __init__(self, **costs: float) -> None:
        self.costs = MatchCosts(**costs)
        check_numbers(**costs)
        check_numbers(most=1.0, alpha=self.costs.alpha)

    @torch.no_grad()
    def __call__(self, predictions: Predictions, targets: Targets) -> Pairs:
        """Match ``predictions`` (L, B, Q, ...) with ``targets``: L * sum(min(count, Q)) pairs."""
        image = targets.image
        cost = self.costs(predictions.logits, predictions.boxes, targets.labels, targets.boxes, image)
        layer, query, truth = (index.to(image.device) for index in hungarian_pairs(cost, targets.counts))
        return Pairs(layer, image[truth], query, truth)


class _Block(NamedTuple):
    """Queries that stand side by side, and the prefixes of their losses' names, one a layer."""

    prefixes: list[str]
    num_queries: int
    pairs: Pairs
    """Counted from the block's first query."""
    num_boxes: Tensor
    """What each sum is divided by (mmdet's ``avg_factor``)."""


@MODELS.register_module()
class SetCriterion(nn.Module):
    """DETR's set prediction loss. Any classification, box and IoU loss of mmdet can be named.

    A ``loss_cls`` derived from ``QualityFocalLoss`` (:class:`IoUVarifocalLoss` among them) is given the matched box's
    quality as soft target; any other is given labels alone. All sums are divided by the number of ground-truth boxes,
    averaged over the processes and at least 1; for denoising also by the number of groups.

    The encoder's class scores learn what the selector's :class:`~mmdet_iouquery.structures.EncoderTarget` says.

    The names are mmdet's: ``loss_cls``, ``loss_bbox``, ``loss_iou`` of the last layer, ``d0.loss_cls``, ... of the
    others, ``enc_loss_cls``, ... of the encoder, ``dn_loss_cls`` and ``d0.dn_loss_cls``, ... of denoising, and
    ``enc_loss_quality`` of an encoder that predicts its IoU. They do not depend on the ground truth: a batch without
    boxes has the same ones.

    Args:
        assigner: matches predictions with ground truth.
        loss_cls, loss_bbox, loss_iou: the losses, by config or built; their ``loss_weight`` counts. ``loss_bbox``
            compares normalised ``cx, cy, w, h``, ``loss_iou`` normalised corners.
        encoder_loss_cls: the encoder's; None: ``loss_cls``, or, where that knows no soft targets and the selector is
            IoU-aware, ``IoUVarifocalLoss`` with the same weight.
        quality: the soft target: 'iou', 'giou', 'diou' or 'ciou' of the matched box, negative values counting as 0.

    Raises:
        ValueError: an unknown ``quality``.
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
    ) -> None:
        super().__init__()
        check_choice(list(OVERLAPS), quality=quality)
        self.quality = quality
        self.assigner: Assigner = TASK_UTILS.build(assigner) if isinstance(assigner, dict) else assigner
        self.loss_cls = _built(loss_cls)
        self.loss_bbox = _built(loss_bbox)
        self.loss_iou = _built(loss_iou)
        self.encoder_loss_cls = _built(encoder_loss_cls or self.loss_cls)
        self.soft_encoder_loss_cls = self.encoder_loss_cls
        if encoder_loss_cls is None and not takes_quality(self.loss_cls):
            self.soft_encoder_loss_cls = _built({'type': 'IoUVarifocalLoss', 'loss_weight': self.loss_cls.loss_weight})

    def forward(self, decoded: Decoded, targets: Targets) -> dict[str, Tensor]:
        """All losses, each a scalar, in single precision at least: half is too coarse for costs and losses."""
        selection, predictions = decoded.selection, _float(decoded.predictions)
        if selection.encoder is not None:
            selection = selection._replace(encoder=_float(selection.encoder))
        decoded = decoded._replace(selection=selection, predictions=predictions)
        num_boxes = reduce_mean(predictions.logits.new_tensor(float(targets.labels.shape[0]))).clamp(min=1.0)

        pairs, encoder_pairs = self._match(decoded, targets)
        losses = self._losses(predictions, _decoder_blocks(decoded, pairs, num_boxes), targets, self.loss_cls)
        if encoder_pairs is not None:
            losses.update(self._encoder_losses(selection, encoder_pairs, targets, num_boxes))
        return losses

    def _match(self, decoded: Decoded, targets: Targets) -> tuple[Pairs, Pairs | None]:
        """Pairs of the matching queries, and of the encoder: one call for both where they ask for the same."""
        matching = Predictions(*(x.detach() for x in decoded.matching_predictions))
        encoder, target = decoded.selection.encoder, decoded.selection.encoder_target
        if encoder is None:
            return self.assigner(matching, targets), None
        if target.class_agnostic or encoder.logits.shape[1:] != matching.logits.shape[1:]:
            return self.assigner(matching, targets), self.assigner(encoder, target.targets(targets))
        pairs = self.assigner(Predictions(*(torch.cat(pair) for pair in zip(matching, encoder))), targets)
        return _without_last_layer(pairs, matching.logits.shape[0], self.assigner)

    def _losses(
        self,
        predictions: Predictions,
        blocks: Sequence[_Block],
        targets: Targets,
        loss_cls: nn.Module,
        *,
        by_label: bool = False,
    ) -> dict[str, Tensor]:
        """The three losses of each layer of the blocks that make up the queries; ``by_label``: without soft targets."""
        logits, boxes = predictions
        pairs, name = _joined(blocks)
        matched, truth = boxes[pairs.predicted], targets.boxes[pairs.truth]
        quality: Tensor | float = 1.0
        if takes_quality(loss_cls) and not by_label:
            quality = self._overlap(matched, truth)
        class_loss = self._class_loss(loss_cls, logits, pairs, targets.labels[pairs.truth], quality)
        box_loss, iou_loss = self._box_loss(matched, truth), self._iou_loss(matched, truth)
        return _named(blocks, class_loss, name, {'loss_bbox': box_loss, 'loss_iou': iou_loss})

    def _class_loss(
        self, loss_cls: nn.Module, logits: Tensor, pairs: Pairs, labels: Tensor, quality: Tensor | float
    ) -> Tensor:
        """(L, B, Q, C or 1): of logits (L, B, Q, C), which learn the pairs' labels (M,) and quality, or background."""
        target = torch.full(logits.shape[:-1], logits.shape[-1], dtype=torch.long, device=logits.device)
        target[pairs.predicted] = labels
        if not takes_quality(loss_cls):
            loss = loss_cls(logits.flatten(0, 2), target.flatten(), reduction_override='none')
        else:
            soft = logits.new_zeros(target.shape)
            soft[pairs.predicted] = quality
            loss = loss_cls(logits.flatten(0, 2), (target.flatten(), soft.flatten()), reduction_override='none')
        return loss.reshape(*target.shape, -1)

    def _box_loss(self, matched: Tensor, truth: Tensor) -> Tensor:
        """(M,): of each pair's boxes (M, 4)."""
        return _by_pair(self.loss_bbox, matched, truth)

    def _iou_loss(self, matched: Tensor, truth: Tensor) -> Tensor:
        """(M,): of each pair's boxes (M, 4), as corners."""
        return _by_pair(self.loss_iou, box_cxcywh_to_xyxy(matched), box_cxcywh_to_xyxy(truth))

    def _overlap(self, matched: Tensor, truth: Tensor) -> Tensor:
        """The quality (M,) in [0, 1] of each pair's boxes (M, 4), detached."""
        return OVERLAPS[self.quality](box_cxcywh_to_xyxy(matched.detach()), box_cxcywh_to_xyxy(truth)).clamp(0, 1)

    def _encoder_losses(
        self, selection: Selection, pairs: Pairs, targets: Targets, num_boxes: Tensor
    ) -> dict[str, Tensor]:
        """Of the encoder's predictions, whose scores learn what its selector says."""
        encoder, target = selection.encoder, selection.encoder_target
        assert encoder is not None
        loss_cls = self.soft_encoder_loss_cls if target.score == 'iou' else self.encoder_loss_cls
        block = _Block(['enc_'], encoder.logits.shape[2], pairs, num_boxes)
        losses = self._losses(encoder, [block], target.targets(targets), loss_cls, by_label=target.score == 'label')
        if target.iou_logits is not None:
            iou = self._overlap(encoder.boxes[pairs.predicted], targets.boxes[pairs.truth])
            logits = as_float(target.iou_logits)[pairs.predicted]
            losses['enc_loss_quality'] = F.binary_cross_entropy_with_logits(logits, iou, reduction='sum') / num_boxes
        return losses


def takes_quality(loss_cls: nn.Module) -> bool:
    """Whether a classification loss is given ``(labels, quality)``, as mmdet's heads tell; else labels alone."""
    return isinstance(loss_cls, QualityFocalLoss)


def _built(loss: Any) -> nn.Module:
    return MODELS.build(loss) if isinstance(loss, dict) else loss


def _float(predictions: Predictions) -> Predictions:
    return Predictions(*map(as_float, predictions))


def _decoder_blocks(decoded: Decoded, pairs: Pairs, num_boxes: Tensor) -> list[_Block]:
    """The denoising queries, where there are some, and the matching ones."""
    num_layers, _, num_queries = decoded.matching_predictions.logits.shape[:3]
    layers = [f'd{i}.' for i in range(num_layers - 1)] + ['']
    matching = _Block(layers, num_queries, pairs, num_boxes)
    if decoded.denoising is None:
        return [matching]
    pairs, num_boxes = _every_layer(decoded.denoising, num_layers), num_boxes * decoded.denoising.num_groups
    return [_Block([f'{layer}dn_' for layer in layers], decoded.num_denoising, pairs, num_boxes), matching]


def _every_layer(denoising: DenoisingQueries, num_layers: int) -> Pairs:
    """The pairs of one layer, repeated for all."""
    image, query, truth = (index.repeat(num_layers) for index in denoising.pairs)
    layer = torch.arange(num_layers, device=image.device).repeat_interleave(denoising.pairs[0].shape[0])
    return Pairs(layer, image, query, truth)


def _without_last_layer(pairs: Pairs, last: int, assigner: Assigner) -> tuple[Pairs, Pairs]:
    """The pairs of the layers before the last, and the last's, as layer 0."""
    # a mask would make the host wait for the device, to learn how many there are
    even = getattr(assigner, 'same_number_each_layer', False)
    end = pairs.layer.shape[0] // (last + 1) * last
    before, rest = (slice(end), slice(end, None)) if even else (pairs.layer < last, pairs.layer == last)
    ours, theirs = (Pairs(*(index[rows] for index in pairs)) for rows in (before, rest))
    return ours, theirs._replace(layer=theirs.layer - last)


def _joined(blocks: Sequence[_Block]) -> tuple[Pairs, Tensor]:
    """All pairs, by the queries of all blocks; and which name (M,) each one's losses go under."""
    pairs, names, first_query, first_name = [], [], 0, 0
    for block in blocks:
        pairs.append(block.pairs._replace(query=block.pairs.query + first_query))
        names.append(block.pairs.layer + first_name)
        first_query += block.num_queries
        first_name += len(block.prefixes)
    return Pairs(*(torch.cat(columns) for columns in zip(*pairs))), torch.cat(names)


def _by_pair(loss: nn.Module, matched: Tensor, truth: Tensor) -> Tensor:
    """(M,): each pair's loss, summed over what else there is."""
    if not matched.shape[0]:  # some of mmdet's losses give a scalar then; every layer stays in the graph
        return matched.sum(-1)
    return loss(matched, truth, reduction_override='none').reshape(matched.shape[0], -1).sum(-1)


def _named(
    blocks: Sequence[_Block], query_loss: Tensor, name: Tensor, pair_losses: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The sums of each block's layers, over the block's number of boxes, under their names.

    Args:
        query_loss: (L, B, Q, ...), the class loss.
        name: (M,), which of the S names a pair's losses go under.
        pair_losses: (M,) each.
    """
    prefixes = [prefix for block in blocks for prefix in block.prefixes]
    num_boxes = torch.stack([block.num_boxes for block in blocks]).repeat_interleave(query_loss.shape[0])
    by_block = query_loss.split([block.num_queries for block in blocks], dim=2)
    sums = {'loss_cls': torch.cat([loss.sum((1, 2, 3)) for loss in by_block])}
    for term, loss in pair_losses.items():
        sums[term] = loss.new_zeros(len(prefixes)).index_add(0, name, loss)
    values = {term: (total / num_boxes).unbind() for term, total in sums.items()}
    return {prefix + term: values[term][i] for i, prefix in enumerate(prefixes) for term in values}

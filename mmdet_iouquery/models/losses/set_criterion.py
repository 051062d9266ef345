"""Matching and losses of all layers, matched and denoising queries, in one pass, and of the encoder in another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ...core import (
    as_float,
    box_cxcywh_to_xyxy,
    box_iou_elementwise,
    complete_box_iou_elementwise,
    distance_box_iou_elementwise,
    generalized_box_iou_elementwise,
)
from ...structures import DenoisingQueries, Pairs, Predictions, Selection, Targets
from ..arguments import check_choice

OVERLAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'iou': box_iou_elementwise,
    'giou': generalized_box_iou_elementwise,
    'diou': distance_box_iou_elementwise,
    'ciou': complete_box_iou_elementwise,
}


class _Group(NamedTuple):
    """Queries that stand side by side, and the names of their losses, one prefix a layer."""

    names: list[str]
    num_queries: int
    pairs: Pairs
    """Counted from the group's first query."""
    average: Tensor
    """What each sum is divided by."""


@MODELS.register_module()
class SetCriterion(nn.Module):
    """DETR's set prediction loss. Any classification, box and IoU loss of mmdet can be named.

    A ``loss_cls`` derived from ``QualityFocalLoss`` (:class:`IoUVarifocalLoss` among them) is given the matched box's
    quality as soft target; any other is given labels alone. All sums are divided by the number of ground-truth boxes,
    averaged over the processes and at least 1; for denoising also by the number of groups.

    The encoder's class scores learn what their selector says: the quality (IoU-aware), 1 for the label, or what the
    decoder's do.

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
        self.assigner = TASK_UTILS.build(assigner) if isinstance(assigner, dict) else assigner
        self.loss_cls = _built(loss_cls)
        self.loss_bbox = _built(loss_bbox)
        self.loss_iou = _built(loss_iou)
        self.encoder_loss_cls = _built(encoder_loss_cls or self.loss_cls)
        if encoder_loss_cls is None and not isinstance(self.loss_cls, QualityFocalLoss):
            self.soft_encoder_loss_cls = _built({'type': 'IoUVarifocalLoss', 'loss_weight': self.loss_cls.loss_weight})
        else:
            self.soft_encoder_loss_cls = self.encoder_loss_cls

    def forward(
        self,
        decoder: Predictions,
        selection: Selection | None,
        targets: Targets,
        denoising: DenoisingQueries | None,
    ) -> dict[str, Tensor]:
        """All losses, each a scalar.

        Args:
            decoder: all layers' predictions (L, B, P + Q, ...), the P denoising queries first.
            selection: the selector's answer; its encoder predictions (1, B, Q, ...), where it has some, are supervised.
        """
        decoder = _float(decoder)
        num_layers, num_denoising = decoder.logits.shape[0], 0
        if denoising is not None:
            num_denoising = denoising.queries.content.shape[1]
        average = reduce_mean(decoder.logits.new_tensor(float(targets.labels.shape[0]))).clamp(min=1.0)
        matching = Predictions(*(x[:, :, num_denoising:].detach() for x in decoder))
        encoder_losses: dict[str, Tensor] = {}
        if selection is None or selection.encoder is None:
            pairs = self.assigner(matching, targets)
        else:
            pairs, encoder_losses = self._match_with_encoder(matching, selection, targets, average)
        names = [f'd{i}.' for i in range(num_layers - 1)] + ['']
        groups = [_Group(names, matching.logits.shape[2], pairs, average)]
        if denoising is not None:
            names = [f'{name}dn_' for name in names]
            pairs = _every_layer(denoising.pairs, num_layers)
            groups.insert(0, _Group(names, num_denoising, pairs, average * denoising.num_groups))
        return {**self._losses(decoder, groups, targets), **encoder_losses}

    def _match_with_encoder(
        self, matching: Predictions, selection: Selection, targets: Targets, average: Tensor
    ) -> tuple[Pairs, dict[str, Tensor]]:
        """The decoder's pairs and the encoder's losses, with one matching for both where they ask for the same."""
        assert selection.encoder is not None
        encoder = _float(selection.encoder)
        if selection.class_agnostic or encoder.logits.shape[1:] != matching.logits.shape[1:]:
            objects = targets._replace(labels=torch.zeros_like(targets.labels)) if selection.class_agnostic else targets
            pairs, encoder_pairs = self.assigner(matching, targets), self.assigner(encoder, objects)
        else:
            objects, last = targets, matching.logits.shape[0]
            both = self.assigner(Predictions(*(torch.cat(pair) for pair in zip(matching, encoder))), targets)
            # a mask would make the host wait for the device, to learn how many there are
            share = both.layer.shape[0] // (last + 1)
            even = getattr(self.assigner, 'same_number_each_layer', False)
            of_decoder = slice(share * last) if even else both.layer < last
            of_encoder = slice(share * last, None) if even else both.layer == last
            pairs, encoder_pairs = (Pairs(*(index[rows] for index in both)) for rows in (of_decoder, of_encoder))
            encoder_pairs = encoder_pairs._replace(layer=encoder_pairs.layer - last)
        loss_cls = self.soft_encoder_loss_cls if selection.iou_aware else self.encoder_loss_cls
        soft = selection.iou_aware is not False
        losses = self._losses(
            encoder, [_Group(['enc_'], encoder.logits.shape[2], encoder_pairs, average)], objects, loss_cls, soft
        )
        if selection.iou_logits is not None:
            index = encoder_pairs.layer, encoder_pairs.image, encoder_pairs.query
            logits = as_float(selection.iou_logits)[index]
            iou = self._overlap(encoder.boxes[index], targets.boxes[encoder_pairs.truth])
            loss = F.binary_cross_entropy_with_logits(logits, iou, reduction='sum')
            losses['enc_loss_quality'] = loss / average
        return pairs, losses

    def _overlap(self, matched: Tensor, truth: Tensor) -> Tensor:
        """The quality (M,) in [0, 1] of each pair's boxes (M, 4), detached."""
        return OVERLAPS[self.quality](box_cxcywh_to_xyxy(matched.detach()), box_cxcywh_to_xyxy(truth)).clamp(0, 1)

    def _losses(
        self,
        predictions: Predictions,
        groups: Sequence[_Group],
        targets: Targets,
        loss_cls: nn.Module | None = None,
        soft: bool = True,
    ) -> dict[str, Tensor]:
        """The three losses of each of the groups' layers; ``soft``: class scores learn the quality, else 1."""
        logits, boxes = predictions
        loss_cls = loss_cls or self.loss_cls
        num_layers, num_classes = logits.shape[0], logits.shape[-1]
        names = [name for group in groups for name in group.names]
        average = torch.stack([group.average for group in groups]).repeat_interleave(num_layers)
        pairs, place = _joined(groups)
        matched, truth = boxes[pairs.layer, pairs.image, pairs.query], targets.boxes[pairs.truth]

        labels = torch.full(logits.shape[:-1], num_classes, dtype=torch.long, device=logits.device)
        labels[pairs.layer, pairs.image, pairs.query] = targets.labels[pairs.truth]
        target: Tensor | tuple[Tensor, Tensor] = labels.flatten()
        if isinstance(loss_cls, QualityFocalLoss):
            quality = logits.new_zeros(labels.shape)
            quality[pairs.layer, pairs.image, pairs.query] = self._overlap(matched, truth) if soft else 1.0
            target = (labels.flatten(), quality.flatten())

        def per_place(loss: nn.Module, prediction: Tensor, target: Tensor) -> Tensor:
            """The pairs' losses summed by group and layer, (S,), S = number of names."""
            if place.shape[0] == 0:  # some of mmdet's losses give a scalar then; every layer stays in the graph
                return prediction.sum() * prediction.new_zeros(len(names))
            pair_loss = loss(prediction, target, reduction_override='none').reshape(place.shape[0], -1).sum(-1)
            return pair_loss.new_zeros(len(names)).index_add(0, place, pair_loss)

        class_loss = loss_cls(logits.flatten(0, 2), target, reduction_override='none')
        by_group = class_loss.reshape(*labels.shape, -1).split([group.num_queries for group in groups], dim=2)
        terms = {
            'loss_cls': torch.cat([part.sum((1, 2, 3)) for part in by_group]),
            'loss_bbox': per_place(self.loss_bbox, matched, truth),
            'loss_iou': per_place(self.loss_iou, box_cxcywh_to_xyxy(matched), box_cxcywh_to_xyxy(truth)),
        }
        by_place = {term: (value / average).unbind() for term, value in terms.items()}
        return {prefix + term: values[i] for i, prefix in enumerate(names) for term, values in by_place.items()}


def _joined(groups: Sequence[_Group]) -> tuple[Pairs, Tensor]:
    """All pairs, by the queries of all groups; and the place (M,) of each one's loss among those of all groups."""
    pairs, places, first_query, first_place = [], [], 0, 0
    for group in groups:
        pairs.append(group.pairs._replace(query=group.pairs.query + first_query))
        places.append(group.pairs.layer + first_place)
        first_query += group.num_queries
        first_place += len(group.names)
    return Pairs(*(torch.cat(columns) for columns in zip(*pairs))), torch.cat(places)


def _built(loss: Any) -> nn.Module:
    return MODELS.build(loss) if isinstance(loss, dict) else loss


def _float(predictions: Predictions) -> Predictions:
    """In single precision at least: half precision is too coarse for costs and losses."""
    return Predictions(*map(as_float, predictions))


def _every_layer(pairs: tuple[Tensor, Tensor, Tensor], num_layers: int) -> Pairs:
    """Repeat one layer's pairs for all."""
    image, query, truth = (index.repeat(num_layers) for index in pairs)
    layer = torch.arange(num_layers, device=image.device).repeat_interleave(pairs[0].shape[0])
    return Pairs(layer, image, query, truth)

"""Matching and losses of all layers and the encoder in one pass, and of the denoising queries in another."""

from __future__ import annotations

import torch
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ...core import MatchCosts, box_cxcywh_to_xyxy, box_iou_elementwise, hungarian_pairs
from ...structures import DenoisingQueries, Pairs, Predictions, Targets


@TASK_UTILS.register_module()
class BatchedHungarianAssigner:
    """One-to-one matching of every layer and image at once, with RT-DETR's costs by default.

    Args:
        class_weight, bbox_weight, giou_weight: weights of the focal class cost, of the L1 distance of normalised
            ``cx, cy, w, h`` and of the negative GIoU.
        alpha, gamma: of the focal class cost.
    """

    def __init__(self, **costs: float) -> None:
        self.costs = MatchCosts(**costs)

    @torch.no_grad()
    def __call__(self, predictions: Predictions, targets: Targets) -> Pairs:
        """Match ``predictions`` (L, B, Q, ...) with ``targets``: L * sum(min(count, Q)) pairs."""
        image = targets.image
        cost = self.costs(predictions.logits, predictions.boxes, targets.labels, targets.boxes, image)
        layer, query, truth = (index.to(image.device) for index in hungarian_pairs(cost, targets.counts))
        return Pairs(layer, image[truth], query, truth)


@MODELS.register_module()
class SetCriterion(nn.Module):
    """DETR's set prediction loss. Any classification, box and IoU loss of mmdet can be named.

    A ``loss_cls`` derived from ``QualityFocalLoss`` (:class:`IoUVarifocalLoss` among them) is given the matched box's
    IoU as soft target; any other is given labels alone. All sums are divided by the number of ground-truth boxes,
    averaged over the processes and at least 1; for denoising also by the number of groups.

    The names are mmdet's: ``loss_cls``, ``loss_bbox``, ``loss_iou`` of the last layer, ``d0.loss_cls``, ... of the
    others, ``enc_loss_cls``, ... of the encoder, ``dn_loss_cls`` and ``d0.dn_loss_cls``, ... of denoising. They do not
    depend on the ground truth: a batch without boxes has the same ones.

    Args:
        assigner: matches predictions with ground truth.
        loss_cls, loss_bbox, loss_iou: the losses; their ``loss_weight`` counts. ``loss_bbox`` compares normalised
            ``cx, cy, w, h``, ``loss_iou`` normalised corners.
    """

    def __init__(self, *, assigner: dict, loss_cls: dict, loss_bbox: dict, loss_iou: dict) -> None:
        super().__init__()
        self.assigner = TASK_UTILS.build(assigner)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_iou = MODELS.build(loss_iou)

    def forward(
        self,
        decoder: Predictions,
        encoder: Predictions | None,
        targets: Targets,
        denoising: DenoisingQueries | None,
    ) -> dict[str, Tensor]:
        """All losses, each a scalar.

        Args:
            decoder: all layers' predictions (L, B, P + Q, ...), the P denoising queries first.
            encoder: the selector's predictions (1, B, Q, ...), or None.
        """
        decoder, encoder = _float(decoder), None if encoder is None else _float(encoder)
        num_layers, num_denoising = len(decoder.logits), 0
        if denoising is not None:
            num_denoising = denoising.queries.content.shape[1]
        matching = Predictions(*(x[:, :, num_denoising:] for x in decoder))
        if encoder is not None:
            matching = Predictions(*(torch.cat(pair) for pair in zip(matching, encoder)))
        average = reduce_mean(decoder.logits.new_tensor(float(len(targets.labels)))).clamp(min=1.0)

        names = [f'd{i}.' for i in range(num_layers - 1)] + ['']
        names += [] if encoder is None else ['enc_']
        losses = self._losses(matching, self.assigner(matching, targets), targets, average, names)
        if denoising is not None:
            noisy = Predictions(*(x[:, :, :num_denoising] for x in decoder))
            names = [f'd{i}.dn_' for i in range(num_layers - 1)] + ['dn_']
            pairs = _every_layer(denoising.pairs, num_layers)
            losses.update(self._losses(noisy, pairs, targets, average * denoising.num_groups, names))
        return losses

    def _losses(
        self, predictions: Predictions, pairs: Pairs, targets: Targets, average: Tensor, names: list[str]
    ) -> dict[str, Tensor]:
        """The three losses of each of the ``names``' layers."""
        logits, boxes = predictions
        num_layers, num_classes = len(logits), logits.shape[-1]
        matched, truth = boxes[pairs.layer, pairs.image, pairs.query], targets.boxes[pairs.truth]
        matched_xyxy, truth_xyxy = box_cxcywh_to_xyxy(matched), box_cxcywh_to_xyxy(truth)

        labels = torch.full(logits.shape[:-1], num_classes, dtype=torch.long, device=logits.device)
        labels[pairs.layer, pairs.image, pairs.query] = targets.labels[pairs.truth]
        target: Tensor | tuple[Tensor, Tensor] = labels.flatten()
        if isinstance(self.loss_cls, QualityFocalLoss):
            quality = logits.new_zeros(labels.shape)
            overlap = box_iou_elementwise(matched_xyxy.detach(), truth_xyxy)
            quality[pairs.layer, pairs.image, pairs.query] = overlap.clamp(min=0, max=1)
            target = (labels.flatten(), quality.flatten())

        def per_layer(loss: nn.Module, prediction: Tensor, target: Tensor) -> Tensor:
            """The pairs' losses summed by layer, (L,)."""
            if not len(pairs.layer):  # some of mmdet's losses give a scalar then; every layer stays in the graph
                return prediction.sum() * prediction.new_zeros(num_layers)
            pair_loss = loss(prediction, target, reduction_override='none').reshape(len(pairs.layer), -1).sum(-1)
            return pair_loss.new_zeros(num_layers).index_add(0, pairs.layer, pair_loss)

        loss_cls = self.loss_cls(logits.flatten(0, 2), target, reduction_override='none')
        terms = {
            'loss_cls': loss_cls.reshape(num_layers, -1).sum(-1),
            'loss_bbox': per_layer(self.loss_bbox, matched, truth),
            'loss_iou': per_layer(self.loss_iou, matched_xyxy, truth_xyxy),
        }
        return {prefix + term: value[i] / average for i, prefix in enumerate(names) for term, value in terms.items()}


def _float(predictions: Predictions) -> Predictions:
    """In single precision at least: half precision is too coarse for costs and losses."""
    return Predictions(*(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in predictions))


def _every_layer(pairs: tuple[Tensor, Tensor, Tensor], num_layers: int) -> Pairs:
    """Repeat one layer's pairs for all."""
    image, query, truth = (index.repeat(num_layers) for index in pairs)
    layer = torch.arange(num_layers, device=image.device).repeat_interleave(len(pairs[0]))
    return Pairs(layer, image, query, truth)

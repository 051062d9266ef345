"""Adapter of mmdet's DDQ-DETR, which keeps queries apart by NMS and trains a dense branch beside them."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.models.detectors import DDQDETR
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from ...core import box_cxcywh_to_xyxy, gather_tokens, inverse_sigmoid
from ...structures import Assigner, DenoisingQueries, Memory, Pairs, Predictions, Queries, Selection, Targets
from ..losses.quality_losses import takes_quality
from .deformable import DINOQueryParts, parents_denoising
from .query_parts import Step, Unused

FAR = -50.0
"""Where boxes of queries that NMS has put aside are, in image sizes, so that no ground truth matches them."""


class DistinctAssigner:
    """Another assigner, for which the queries that NMS has put aside do not exist.

    Args:
        assigner: the other.
    """

    def __init__(self, assigner: Assigner) -> None:
        self.assigner = assigner
        self.aside: Tensor | None = None
        """(L, B, Q) bool, of the batch at hand; None: there are none."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Pairs:
        aside = self.aside
        if aside is None or aside.shape != predictions.logits.shape[:3]:  # the encoder's
            return self.assigner(predictions, targets)
        pairs = self.assigner(
            predictions._replace(boxes=predictions.boxes.masked_fill(aside.unsqueeze(-1), FAR)), targets
        )
        is_kept = ~aside.cpu()[pairs.predicted]
        return Pairs(*(index[is_kept] for index in pairs))


@MODELS.register_module()
class IoUQueryDDQDETR(DINOQueryParts, DDQDETR):
    """mmdet's DDQ-DETR, whose query selector and decoder a config can name; denoising stays its own.

    Queries are kept distinct by NMS, as in DDQ: a named selector's tokens are ranked by its score, then NMS passes over
    their boxes. DDQ's decoder repeats that between layers; a named decoder does not. The dense queries of training stay
    DDQ's; a named decoder's heads serve them as well. A quality-aware ``loss_cls`` (varifocal, matchability) is given
    the IoU, which mmdet's own head does not do.
    """

    def __init__(self, *, bbox_head: dict[str, Any], **others: Any) -> None:
        super().__init__(bbox_head=bbox_head, **others)
        if not self.has_parts and takes_quality(self.bbox_head.loss_cls):
            self.has_parts = True
            self._add_criterion('iou')

    def _assigner(self) -> DistinctAssigner:
        self._distinct_assigner = DistinctAssigner(super()._assigner())
        return self._distinct_assigner

    def why_untraceable(self) -> str | None:
        return 'its queries are chosen again in each layer and mixed with dense ones'

    def _leave_out_unused(self) -> None:
        head, last = self.bbox_head, self.decoder.num_layers
        if 'decoder' in self._part_names:
            for i in range(last):
                head.cls_branches[i], head.reg_branches[i] = Unused(), Unused()
                head.aux_cls_branches[i], head.aux_reg_branches[i] = Unused(), Unused()
        if self.query_selector is not None:
            # the dense branch goes on with memory_trans, query_map and the heads at the very end
            head.cls_branches[last], head.reg_branches[last] = Unused(), Unused()

    # ---- queries -------------------------------------------------------------------------------------------------

    def _select(self, step: Step, memory: Memory, num_queries: int | None = None) -> Selection:
        if self.query_selector is None:
            return self._parents_selection(step, memory)
        if getattr(self.query_selector, 'selects_tokens', False):
            selection = self._distinct(self.query_selector(memory, num_queries=memory.tokens.shape[1]))
        else:  # learned queries have no ranking
            selection = self.query_selector(memory)
        self.cache_dict['dis_query_info'] = [0, selection.queries.num_queries]
        if not self.training:
            return selection
        dense = self._dense_queries(step.encoded)
        self.cache_dict['num_dense_queries'] = dense.num_queries
        self._lend_heads()
        return selection._replace(queries=dense.after(selection.queries))

    def _parents_denoising(self, step: Step, targets: Targets, num_queries: int) -> DenoisingQueries:
        if step.denoising is not None:
            return step.denoising
        content, anchors_unact, mask, meta = self.dn_query_generator(step.samples)
        first, number = content.shape[1], num_queries - self.cache_dict['num_dense_queries']
        # dense queries see each other, and nobody sees them
        mask_with_dense = mask.new_ones(first + num_queries, first + num_queries)
        mask_with_dense[: first + number, : first + number] = mask[: first + number, : first + number]
        mask_with_dense[first + number :, first + number :] = False
        self.cache_dict['dis_query_info'] = [first, number]
        return parents_denoising(Queries(content, anchors_unact), mask_with_dense, meta, step.samples)

    def _chosen(self, logits: Tensor, queries: Queries) -> None:
        """The parent's tokens went through NMS, and with the dense queries among them they are not looked for."""

    def pre_decoder(self, *args: Any, **inputs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parent's, whose decoder then borrows the auxiliary box heads without owning them."""
        prepared = super().pre_decoder(*args, **inputs)
        self._lend_heads()
        if self.has_parts and self.training:
            self._dense_encoder = Predictions(
                prepared[1]['aux_enc_outputs_class'], prepared[1]['aux_enc_outputs_coord']
            )
        return prepared

    def _lend_heads(self) -> None:
        """Give the decoder the head's auxiliary branches, out of sight of checkpoints.

        mmdet registers them a second time, so a trained DDQ has names in its checkpoints that a new one lacks.
        """
        if hasattr(self.decoder, 'aux_reg_branches'):
            del self.decoder.aux_reg_branches
        object.__setattr__(self.decoder, 'aux_reg_branches', self.bbox_head.aux_reg_branches)

    def _distinct(self, selection: Selection) -> Selection:
        """The best queries of a ranking of all tokens that NMS leaves, equally many for each image."""
        content, anchors_unact = selection.queries[:2]
        kept = []
        for image_boxes in box_cxcywh_to_xyxy(anchors_unact.detach().sigmoid()):
            rank = torch.arange(image_boxes.shape[0], 0, -1, device=image_boxes.device, dtype=image_boxes.dtype)
            _, distinct = batched_nms(image_boxes, rank, torch.ones_like(rank), self.dqs_cfg)
            others = torch.ones_like(rank, dtype=torch.bool)
            others[distinct] = False
            # where NMS leaves too few, the best of the others fill up
            kept.append(torch.cat([distinct, others.nonzero().squeeze(1)])[: self.num_queries])
        index = torch.stack(kept)
        encoder = selection.encoder and selection.encoder.apply(lambda x: gather_tokens(x[0], index)[None])
        target = selection.encoder_target
        if target.iou_logits is not None:
            target = target._replace(iou_logits=target.iou_logits[0].gather(1, index)[None])
        return selection._replace(
            queries=Queries(gather_tokens(content, index), gather_tokens(anchors_unact, index)),
            encoder=encoder,
            token_index=None if selection.token_index is None else selection.token_index.gather(1, index),
            encoder_target=target,
        )

    def _dense_queries(self, encoded: dict[str, Any]) -> Queries:
        """DDQ's dense queries: the best tokens of its auxiliary heads, without NMS."""
        memory = encoded['memory']
        tokens, proposals = self.gen_encoder_output_proposals(memory, encoded['memory_mask'], encoded['spatial_shapes'])
        logits = self.bbox_head.cls_branches[-1](tokens)
        boxes_unact = self.bbox_head.reg_branches[-1](tokens) + proposals
        number = min(int(self.num_queries * self.dense_topk_ratio), logits.shape[1])
        index = logits.amax(-1).topk(number, dim=1).indices
        boxes_unact = gather_tokens(boxes_unact, index)
        self._dense_encoder = Predictions(gather_tokens(logits, index), boxes_unact.sigmoid())
        content = gather_tokens(self.query_map(memory.detach()), index)
        return Queries(content, inverse_sigmoid(boxes_unact.detach().sigmoid()))

    # ---- decoding and losses -------------------------------------------------------------------------------------

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor] | list[Any]:
        """DDQ's losses, or, with parts, those of the criterion on the distinct queries and DDQ's on the dense ones."""
        if not self.has_parts:
            return super().loss(batch_inputs, batch_data_samples)
        targets = self.targets(batch_data_samples)
        decoded = self.run_parts(self.extract_feat(batch_inputs), batch_data_samples, targets)
        distinct, dense = decoded.matching_predictions.split(self.cache_dict['dis_query_info'][1])
        aside = self._aside(distinct.logits.shape[0], len(batch_data_samples))
        self._distinct_assigner.aside = aside
        if aside is not None:  # of no class, for certain: focal losses of such a score are zero
            distinct = distinct._replace(logits=distinct.logits.masked_fill(aside.unsqueeze(-1), -60.0))
        losses = self.criterion(decoded.with_matching(distinct), targets)
        for i, layer in enumerate(zip(dense.logits, dense.boxes)):
            losses.update(self._dense_losses(f'{i}_aux_', Predictions(*layer), batch_data_samples))
        losses.update(self._dense_losses('aux_enc_', self._dense_encoder, batch_data_samples))
        return losses

    def _aside(self, num_layers: int, batch: int) -> Tensor | None:
        """(L, B, Q) bool, the queries that DDQ's decoder has put aside before each layer."""
        if 'decoder' in self._part_names:
            return None
        heads = self.cache_dict['num_heads']
        # as mmdet's head reads them: the first query's row of each image's attention
        kept = [mask[::heads, 0] for mask in self.cache_dict['distinct_query_mask'][: num_layers - 1]]
        return torch.stack([torch.zeros_like(kept[0]), *(~mask for mask in kept)])

    def _dense_losses(self, prefix: str, predictions: Predictions, samples: SampleList) -> dict[str, Tensor]:
        """DDQ's one-to-many losses of one layer's dense predictions (B, Q, ...)."""
        sizes = [sample.metainfo['img_shape'][1::-1] for sample in samples]
        factor = predictions.boxes.new_tensor([(*size, *size) for size in sizes]).unsqueeze(1)
        truth = [sample.gt_instances for sample in samples]
        losses = self.bbox_head.aux_loss_for_dense.loss(
            predictions.logits.sigmoid(),
            box_cxcywh_to_xyxy(predictions.boxes) * factor,
            [instances.bboxes for instances in truth],
            [instances.labels for instances in truth],
            [sample.metainfo for sample in samples],
        )
        return {f'{prefix}{name}': value for name, value in losses.items()}

    def _post_process(self, *predictions: Tensor, **settings: Any) -> list[Any]:
        if 'decoder' in self._part_names:  # which puts no queries aside
            return DeformableDETRHead.predict_by_feat(self.bbox_head, *predictions, **settings)
        return super()._post_process(*predictions, **settings)

"""Adapters of mmdet's Deformable DETR and DINO, whose decoders read points around a box on several maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from mmdet.models.detectors import DINO, DeformableDETR
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from torch import Tensor

from ...core import inverse_sigmoid
from ...structures import DenoisingQueries, EncoderTarget, Memory, Predictions, Queries, Selection, Targets
from .query_parts import QueryParts, Step, Unused


class DeformableQueryParts(QueryParts):
    """What they have in common: several maps, heads in lists with the encoder's at the end."""

    _placeholder_decoder: ClassVar[dict[str, Any]] = {'return_intermediate': True, 'post_norm_cfg': None}
    _needs_boxes = True

    def _check_parts(self, parts: dict[str, dict[str, Any]], others: dict[str, Any]) -> None:
        super()._check_parts(parts, others)
        if parts and not others.get('as_two_stage', False):
            raise ValueError(
                f'{type(self).__name__} takes parts ({", ".join(parts)}) with as_two_stage=True only: without it '
                'queries are points, not boxes; set as_two_stage=True and with_box_refine=True'
            )

    def why_untraceable(self) -> str | None:
        return None if self.as_two_stage else "without as_two_stage=True the parent's queries are points, not boxes"

    def _num_levels(self, others: dict[str, Any]) -> int:
        return others.get('num_feature_levels', 4)

    def _memory(self, encoded: dict[str, Any], decoder_inputs: dict[str, Any], shapes: Any, extent: Any) -> Memory:
        return Memory(encoded['memory'], shapes, decoder_inputs['memory_mask'], extent=extent)

    @contextmanager
    def _encoder_scores(self) -> Iterator[list[Tensor]]:
        """What the parent's class head says of every token, (B, N, C), while it selects."""
        seen: list[Tensor] = []
        branch = self.bbox_head.cls_branches[self.decoder.num_layers]
        handle = branch.register_forward_hook(lambda _, __, logits: seen.append(logits.detach()))
        try:
            yield seen
        finally:
            handle.remove()

    def _chosen(self, logits: Tensor, queries: Queries) -> Tensor | None:
        """(B, Q) int64, the tokens that the parent takes by the encoder's logits (B, N, C)."""
        return logits.amax(-1).topk(queries.content.shape[1], dim=1).indices

    def _leave_out_unused(self) -> None:
        heads, last = self.bbox_head, self.decoder.num_layers
        idle: list[int] = []
        if 'decoder' in self._part_names:
            idle += range(last)
        if self.query_selector is not None:
            idle.append(last)
            self.memory_trans_fc, self.memory_trans_norm = Unused(), Unused()
        for i in idle:
            heads.cls_branches[i], heads.reg_branches[i] = Unused(), Unused()


@MODELS.register_module()
class IoUQueryDeformableDETR(DeformableQueryParts, DeformableDETR):
    """mmdet's two-stage Deformable DETR, whose query selector, denoising and decoder a config can name.

    Position codes of all queries that are boxes, selected or denoising, are those that the parent makes of its own
    proposals. The parent's own selection is supervised as the parent does it: object or not.
    """

    def _leave_out_unused(self) -> None:
        super()._leave_out_unused()
        if 'decoder' in self._part_names and self.query_selector is not None:
            self.pos_trans_fc, self.pos_trans_norm = Unused(), Unused()

    def _parents_selection(self, step: Step, memory: Memory) -> Selection:
        with self._encoder_scores() as scores:
            inputs, supervised = self.pre_decoder(**step.encoded)
        queries = Queries(inputs['query'], inverse_sigmoid(inputs['reference_points']))
        return parents_selection(queries, self._chosen(scores[0], queries), supervised, class_agnostic=True)

    def _chosen(self, logits: Tensor, queries: Queries) -> Tensor | None:
        return super()._chosen(logits[..., :1], queries)

    def _parents_decoder(
        self,
        step: Step,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        code = self.get_proposal_pos_embed(queries.anchors_unact)
        query_pos = self.pos_trans_norm(self.pos_trans_fc(code))[..., : self.embed_dims]
        anchors = queries.anchors_unact.sigmoid()
        hidden, references = self.decoder(
            query=queries.content,
            value=memory.tokens,
            query_pos=query_pos,
            key_padding_mask=memory.padding,
            self_attn_mask=attention_mask,
            reference_points=anchors,
            spatial_shapes=step.decoder_inputs['spatial_shapes'],
            level_start_index=step.decoder_inputs['level_start_index'],
            valid_ratios=step.decoder_inputs['valid_ratios'],
            reg_branches=self.bbox_head.reg_branches if self.with_box_refine else None,
        )
        return Predictions(*self.bbox_head(hidden, [anchors, *references.unbind()]))


class DINOQueryParts(DeformableQueryParts):
    """DINO and what is built on it: denoising of its own, content that is learned."""

    _refused: ClassVar[dict[str, str]] = {'denoising': 'it has contrastive denoising of its own, set by dn_cfg'}
    _denoises = True

    def _leave_out_unused(self) -> None:
        super()._leave_out_unused()
        if self.query_selector is not None:
            self.query_embedding = Unused()

    def _parents_selection(self, step: Step, memory: Memory) -> Selection:
        with self._encoder_scores() as scores:
            inputs, supervised = self.pre_decoder(**step.encoded, batch_data_samples=step.samples)
        joined = Queries(inputs['query'], inverse_sigmoid(inputs['reference_points']))
        if not self.training:
            return Selection(joined, token_index=self._chosen(scores[0], joined))
        meta = supervised['dn_meta']
        noisy, queries = joined.split(meta['num_denoising_queries'])
        step.denoising = parents_denoising(noisy, inputs['dn_mask'], meta, step.samples)
        return parents_selection(queries, self._chosen(scores[0], queries), supervised)

    def _parents_denoising(self, step: Step, targets: Targets, num_queries: int) -> DenoisingQueries:
        if step.denoising is not None:
            return step.denoising
        content, anchors_unact, mask, meta = self.dn_query_generator(step.samples)
        total = content.shape[1] + num_queries  # its mask is for as many queries as are configured
        return parents_denoising(Queries(content, anchors_unact), mask[:total, :total], meta, step.samples)

    def _parents_decoder(
        self,
        step: Step,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        decoded = self.forward_decoder(
            query=queries.content,
            memory=memory.tokens,
            memory_mask=memory.padding,
            reference_points=queries.anchors_unact.sigmoid(),
            spatial_shapes=step.decoder_inputs['spatial_shapes'],
            level_start_index=step.decoder_inputs['level_start_index'],
            valid_ratios=step.decoder_inputs['valid_ratios'],
            dn_mask=attention_mask,
        )
        return Predictions(*self.bbox_head(**decoded))


@MODELS.register_module()
class IoUQueryDINO(DINOQueryParts, DINO):
    """mmdet's DINO, whose query selector and decoder a config can name; denoising stays DINO's own."""


def parents_selection(
    queries: Queries, token_index: Tensor | None, supervised: dict[str, Any], *, class_agnostic: bool = False
) -> Selection:
    """The parent's selection, with what it has the encoder supervised by, in training."""
    encoder = None
    if supervised:
        encoder = Predictions(supervised['enc_outputs_class'][None], supervised['enc_outputs_coord'][None])
    return Selection(queries, encoder, token_index, EncoderTarget(class_agnostic=class_agnostic))


def parents_denoising(queries: Queries, mask: Tensor, meta: dict[str, int], samples: SampleList) -> DenoisingQueries:
    """The queries of mmdet's generator with their pairs: G groups of S positives and S negatives, as ours."""
    num_groups = meta['num_denoising_groups']
    per_group = meta['num_denoising_queries'] // num_groups
    images, slots, truths, start = [], [], [], 0
    for i, sample in enumerate(samples):
        count = sample.gt_instances.labels.shape[0]
        images.append(torch.full((count * num_groups,), i))
        slots.append((torch.arange(num_groups)[:, None] * per_group + torch.arange(count)).flatten())
        truths.append((start + torch.arange(count)).repeat(num_groups))
        start += count
    image, query, truth = (torch.cat(parts).to(mask.device) for parts in (images, slots, truths))
    return DenoisingQueries(queries, mask, (image, query, truth), num_groups)

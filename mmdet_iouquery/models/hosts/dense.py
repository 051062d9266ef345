"""Adapters of mmdet's DETR, Conditional DETR and DAB-DETR, whose decoders attend to every token of one map."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.detectors import DABDETR, DETR, ConditionalDETR
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...config_options import type_name
from ...core import sine_anchor_encoding
from ...structures import Memory, Predictions, Queries, Selection
from ..layers import MLP
from .query_parts import QueryParts, Step, Unused

_SEPARATE = {
    'self_attn_cfg': {'embed_dims': 256, 'num_heads': 8, 'cross_attn': False},
    'cross_attn_cfg': {'embed_dims': 256, 'num_heads': 8, 'cross_attn': True},
}
_HYBRID_REASON = (
    'it reads one map, so there are no scales to fuse, and attention within that map is what its own encoder does'
)


class DenseQueryParts(QueryParts):
    """What the three have in common: one map, position codes of the tokens, queries that may have no anchors."""

    def _check_parts(self, parts: dict[str, dict[str, Any]], others: dict[str, Any]) -> None:
        super()._check_parts(parts, others)
        if type_name(others.get('neck') or {}) == 'HybridEncoder':
            raise ValueError(
                f'{type(self).__name__} takes no HybridEncoder as neck: {_HYBRID_REASON}; leave neck as in the config '
                'of the detector'
            )

    def _num_levels(self, others: dict[str, Any]) -> int:
        return 1

    def _memory(self, encoded: dict[str, Any], decoder_inputs: dict[str, Any], shapes: Any, extent: Any) -> Memory:
        return Memory(
            encoded['memory'],
            shapes[-1:],
            decoder_inputs['memory_mask'],
            extent=extent,
            position=decoder_inputs['memory_pos'],
        )

    def _has_anchors(self) -> bool:
        """Whether the matching queries are boxes, not embeddings."""
        return self.query_selector is not None and getattr(self.query_selector, 'has_anchors', True)

    def _leave_out_unused(self) -> None:
        if self.query_selector is not None:
            self.query_embedding = Unused()
        if 'decoder' in self._part_names:
            self._leave_out_head()

    def _leave_out_head(self) -> None:
        for name in ('fc_cls', 'fc_reg', 'reg_ffn'):
            if hasattr(self.bbox_head, name):
                setattr(self.bbox_head, name, Unused())


class EmbeddedQueryParts(DenseQueryParts):
    """DETR and Conditional DETR: the parent's queries are embeddings; boxes have to be given a position code.

    ``anchor_position`` is an MLP of the sine code of a box, as DAB-DETR's decoder has one, for queries that come from
    anchors: selected ones and denoising ones.
    """

    def __init__(self, **cfg: Any) -> None:
        super().__init__(**cfg)
        self.anchor_position: nn.Module | None = None
        if 'decoder' not in self._part_names and (self._has_anchors() or self.denoising is not None):
            self.anchor_position = MLP(2 * self.embed_dims, self.embed_dims, self.embed_dims, num_layers=2)

    def _parents_selection(self, step: Step, memory: Memory) -> Selection:
        position = self.query_embedding.weight.expand(memory.tokens.shape[0], -1, -1)
        return Selection(Queries(torch.zeros_like(position), position.new_zeros(*position.shape[:2], 4), position))

    def _positions(self, queries: Queries) -> Tensor:
        """(B, P + Q, D), of anchors by ``anchor_position``; learned where there are learned ones."""
        if queries.position is None:
            return self._anchor_positions(queries)
        noisy, matching = queries.split()
        if not noisy.num_queries:
            return queries.position
        assert matching.position is not None
        return torch.cat([self._anchor_positions(noisy), matching.position], dim=1)

    def _anchor_positions(self, queries: Queries) -> Tensor:
        assert self.anchor_position is not None
        return self.anchor_position(sine_anchor_encoding(queries.anchors_unact.sigmoid(), self.embed_dims))


@MODELS.register_module()
class IoUQueryDETR(EmbeddedQueryParts, DETR):
    """mmdet's DETR, whose query selector, denoising and decoder a config can name.

    Queries that are boxes give the head's boxes their start: a box is the head's output plus the anchor's logits, which
    are zero for learned embeddings, as in DETR.
    """

    def _parents_decoder(
        self,
        step: Step,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        hidden = self.decoder(
            query=queries.content,
            key=memory.tokens,
            value=memory.tokens,
            query_pos=self._positions(queries),
            key_pos=memory.position,
            key_padding_mask=memory.padding,
            self_attn_mask=attention_mask,
        )
        return _refined(self.bbox_head, hidden, queries.anchors_unact)


@MODELS.register_module()
class IoUQueryConditionalDETR(EmbeddedQueryParts, ConditionalDETR):
    """mmdet's Conditional DETR, whose query selector, denoising and decoder a config can name.

    The reference point of a query that is a box is the box's centre, and width and height start from the box's.
    """

    _placeholder_layer = _SEPARATE

    def _leave_out_unused(self) -> None:
        super()._leave_out_unused()
        if 'decoder' not in self._part_names and self._has_anchors():
            self.decoder.ref_point_head = Unused()

    def _parents_decoder(
        self,
        step: Step,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        query_pos = self._positions(queries)
        start_unact = queries.anchors_unact
        if queries.position is not None:
            noisy, matching = queries.split()
            centre = self.decoder.ref_point_head(matching.position)
            learned = torch.cat([centre, torch.zeros_like(centre)], dim=-1)
            start_unact = torch.cat([noisy.anchors_unact, learned], dim=1)
        sine = sine_anchor_encoding(start_unact.sigmoid(), self.embed_dims)[..., : self.embed_dims]
        content, hidden = queries.content, []
        for i, layer in enumerate(self.decoder.layers):
            scale = self.decoder.query_scale(content) if i else 1.0
            content = layer(
                content,
                key=memory.tokens,
                query_pos=query_pos,
                key_pos=memory.position,
                self_attn_masks=attention_mask,
                key_padding_mask=memory.padding,
                ref_sine_embed=sine * scale,
                is_first=i == 0,
            )
            hidden.append(self.decoder.post_norm(content))
        return _refined(self.bbox_head, torch.stack(hidden), start_unact)


@MODELS.register_module()
class IoUQueryDABDETR(DenseQueryParts, DABDETR):
    """mmdet's DAB-DETR, whose query selector, denoising (then it is DN-DETR) and decoder a config can name."""

    _placeholder_layer = _SEPARATE
    _needs_boxes = True

    def _leave_out_unused(self) -> None:
        super()._leave_out_unused()
        if self.query_selector is not None and hasattr(self, 'patterns'):
            self.patterns = Unused()

    def _parents_selection(self, step: Step, memory: Memory) -> Selection:
        inputs, _ = self.pre_decoder(memory.tokens)
        return Selection(Queries(inputs['query'], inputs['query_pos']))

    def _parents_decoder(
        self,
        step: Step,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        hidden, references = self.decoder(
            query=queries.content,
            key=memory.tokens,
            query_pos=queries.anchors_unact,
            key_pos=memory.position,
            reg_branches=self.bbox_head.fc_reg,
            key_padding_mask=memory.padding,
            self_attn_masks=attention_mask,
        )
        return Predictions(*self.bbox_head(hidden, references))


def _refined(head: Any, hidden: Tensor, start_unact: Tensor) -> Predictions:
    """Predictions of DETR's head on ``hidden`` (L, B, Q, D), boxes starting from ``start_unact`` (B, Q, 4)."""
    boxes_unact = head.fc_reg(head.activate(head.reg_ffn(hidden))) + start_unact
    return Predictions(head.fc_cls(hidden), boxes_unact.sigmoid())

"""Queries that are learned and the same for every image."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...argument_checks import check_counts, check_flags
from ...core import inverse_sigmoid
from ...structures import Memory, Queries, Selection


class _LearnedQueries(BaseModule):
    """A fixed number of queries, of which a call may ask for the first few."""

    def __init__(self, num_queries: int, init_cfg: dict[str, Any] | list[dict[str, Any]] | None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(num_queries=num_queries)
        self.num_queries = num_queries

    def _number(self, num_queries: int | None) -> int:
        if num_queries is not None and num_queries > self.num_queries:
            raise ValueError(
                f'{num_queries} queries asked for, but {type(self).__name__} has learned {self.num_queries}; ask for '
                'at most as many'
            )
        return num_queries or self.num_queries

    def extra_repr(self) -> str:
        return f'num_queries={self.num_queries}'


@MODELS.register_module()
class LearnedAnchors(_LearnedQueries):
    """Learned anchor boxes (DAB-DETR, section 4.2), whatever the image shows.

    **Trained**: the anchors and what content there is, by the decoder's losses. **Detached**: nothing. The encoder gets
    no losses of its own.

    Args:
        num_classes: not used; every selector is handed it.
        embed_dims: width D of the content.
        num_queries: Q, anchors times patterns.
        random_xy: centres are drawn evenly once and stay as they are (the ablation of DAB-DETR's appendix); only width
            and height are learned.
        num_patterns: each anchor stands once with each of so many learned contents (Anchor DETR, section 3.2); 0: the
            content is zero.
        learned_content: each anchor has a learned content of its own (as DAB-Deformable-DETR).

    Raises:
        ValueError: ``num_queries`` is no multiple of ``num_patterns``, or both kinds of content are asked for.
    """

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        embed_dims: int = 256,
        num_queries: int = 300,
        random_xy: bool = False,
        num_patterns: int = 0,
        learned_content: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(num_queries, init_cfg)
        check_counts(embed_dims=embed_dims)
        check_counts(least=0, num_patterns=num_patterns)
        check_flags(random_xy=random_xy, learned_content=learned_content)
        if num_patterns and (learned_content or num_queries % num_patterns):
            raise ValueError(
                f'num_patterns={num_patterns} needs num_queries to be a multiple of it, got {num_queries}, and '
                f'learned_content=False, got {learned_content}'
            )
        num_anchors = num_queries // max(1, num_patterns)
        self.embed_dims = embed_dims
        self.random_xy = random_xy
        if random_xy:
            self.register_buffer('xy_unact', inverse_sigmoid(torch.rand(num_anchors, 2)))
        else:
            self.xy_unact = nn.Parameter(torch.randn(num_anchors, 2))
        self.wh_unact = nn.Parameter(torch.randn(num_anchors, 2))
        self.content = nn.Embedding(num_queries, embed_dims) if learned_content else None
        self.patterns = nn.Embedding(num_patterns, embed_dims) if num_patterns else None

    def forward(self, memory: Memory, num_queries: int | None = None) -> Selection:
        """The first Q anchors, the same for every image of the batch.

        Raises:
            ValueError: more queries than there are.
        """
        number, batch = self._number(num_queries), memory.tokens.shape[0]
        anchors_unact = torch.cat([self.xy_unact, self.wh_unact], dim=-1)
        if self.patterns is not None:
            anchors_unact = anchors_unact.repeat(self.patterns.num_embeddings, 1)
        content, anchors_unact = self._content(anchors_unact)[:number], anchors_unact[:number]
        return Selection(Queries(content.expand(batch, -1, -1), anchors_unact.expand(batch, -1, -1)))

    def _content(self, anchors_unact: Tensor) -> Tensor:
        if self.content is not None:
            return self.content.weight
        if self.patterns is not None:
            return self.patterns.weight.repeat_interleave(self.wh_unact.shape[0], dim=0)
        return anchors_unact.new_zeros(anchors_unact.shape[0], self.embed_dims)


@MODELS.register_module()
class LearnedEmbeddings(_LearnedQueries):
    """Learned position codes that are tied to no box (DETR, section 3.2), whatever the image shows.

    All anchors start as the box in the middle, half as wide and high as the image, whose logits are zero: the first
    layer's boxes are predicted outright, as DETR's are. What tells queries apart is the learned code, which the decoder
    adds to its own code of the anchors in every layer.

    **Trained**: the codes, by the decoder's losses. **Detached**: nothing. The encoder gets no losses of its own.

    Args:
        num_classes: not used; every selector is handed it.
        embed_dims: width D.
        num_queries: number of queries, Q.
        learned_content: content is learned as well (as Deformable DETR); otherwise it is zero.
    """

    has_anchors = False

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        embed_dims: int = 256,
        num_queries: int = 300,
        learned_content: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(num_queries, init_cfg)
        check_counts(embed_dims=embed_dims)
        check_flags(learned_content=learned_content)
        self.position = nn.Embedding(num_queries, embed_dims)
        self.content = nn.Embedding(num_queries, embed_dims) if learned_content else None

    def forward(self, memory: Memory, num_queries: int | None = None) -> Selection:
        """The first Q codes, the same for every image of the batch.

        Raises:
            ValueError: more queries than there are.
        """
        number, batch = self._number(num_queries), memory.tokens.shape[0]
        position = self.position.weight[:number].expand(batch, -1, -1)
        content = position.new_zeros(position.shape)
        if self.content is not None:
            content = self.content.weight[:number].expand(batch, -1, -1)
        return Selection(Queries(content, position.new_zeros(batch, number, 4), position))

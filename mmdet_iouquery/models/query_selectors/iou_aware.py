"""IoU-aware (uncertainty-minimal) query selection, and the selections that it is compared with.

Every token of the encoder predicts classes and a box, and the Q tokens of the highest score become queries. All depends
on what that score is trained to be (:class:`~mmdet_iouquery.structures.EncoderTarget`):

====================================  ==========================  =================================================
selector                              score that ranks            what the criterion trains it to be
====================================  ==========================  =================================================
:class:`IoUAwareQuerySelector`        class score                 the IoU of the box, for the matched class
:class:`ClassScoreQuerySelector`      class score                 1 for the matched class, whatever the box
:class:`ScoreTimesIoUQuerySelector`   class score times a         1 for the matched class; and, apart from it, the
                                      predicted IoU               IoU of the box
====================================  ==========================  =================================================
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from ...argument_checks import check_choice, check_configs, check_counts, check_flags, check_numbers
from ...core import (
    TableCache,
    as_float,
    gather_shared,
    gather_tokens,
    grid_anchors,
    top_tokens,
    within_range,
    without_gradients,
)
from ...structures import EncoderTarget, Memory, Predictions, Queries, Selection
from ..layers import MLP


class EncoderTokenSelector(BaseModule):
    """Every token predicts classes and a box; the Q tokens that rank best become queries.

    Content comes from the token, the anchor from its box, which is refined from an anchor on the token's place in the
    grid. The chosen tokens' predictions are what the criterion supervises.

    **Trained**: projection, if any, class and box head (and IoU head), and the encoder below, by the encoder's losses.
    **Detached**: content and anchors of the queries: the decoder's losses train the encoder through what the decoder
    reads, not through the choice.

    Args:
        num_classes: number of classes, C.
        embed_dims: width D of the memory.
        num_queries: Q, when a call does not say.
        grid_size: side of the finest level's anchors, as a fraction of the input; doubled a level.
        anchor_eps: tokens whose anchor leaves (eps, 1 - eps) are zeroed and held off.
        learned_content: content is learned, one embedding a rank, and only the anchors come from the encoder ("mixed
            query selection", DINO, section 3.4); a call may then ask for ``num_queries`` at most.
        class_agnostic: the encoder tells objects from background only, by one score a token, for data of many classes
            or of classes to come (RT-DETRv2's "agnostic" selection).
        rank: what competes: each 'token' by its best class, or each 'token_class' pair, so that a token which may be
            several things can become several equal queries (RT-DETRv2's "one2many"); there are Q pairs then, or all.
        act_cfg: activation of the box head; None: ReLU.
        project: a linear layer and a layer norm bring tokens into a space of the selector's own; False: heads read the
            tokens of the memory themselves, which become the content (DEIMv2).
    """

    selects_tokens = True
    score_target: Literal['iou', 'label']

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dims: int = 256,
        num_queries: int = 300,
        grid_size: float = 0.05,
        anchor_eps: float = 1e-2,
        learned_content: bool = False,
        class_agnostic: bool = False,
        rank: Literal['token', 'token_class'] = 'token',
        act_cfg: dict[str, Any] | None = None,
        project: bool = True,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(num_classes=num_classes, embed_dims=embed_dims, num_queries=num_queries)
        check_numbers(most=1.0, grid_size=grid_size)
        check_numbers(most=0.5, anchor_eps=anchor_eps)
        check_flags(learned_content=learned_content, class_agnostic=class_agnostic, project=project)
        check_choice(['token', 'token_class'], rank=rank)
        check_configs(act_cfg=act_cfg)
        self.num_classes = num_classes
        self.num_queries = num_queries
        self.grid_size = grid_size
        self.anchor_eps = anchor_eps
        self.class_agnostic = class_agnostic
        self.rank = rank
        self.memory_proj = nn.Linear(embed_dims, embed_dims) if project else nn.Identity()
        self.memory_norm = nn.LayerNorm(embed_dims) if project else nn.Identity()
        self.cls_head = nn.Linear(embed_dims, 1 if class_agnostic else num_classes)
        self.bbox_head = MLP(embed_dims, embed_dims, 4, num_layers=3, zero_output=True, act_cfg=act_cfg)
        if isinstance(self.memory_proj, nn.Linear):
            nn.init.xavier_uniform_(self.memory_proj.weight)
        nn.init.constant_(self.cls_head.bias, bias_init_with_prob(0.01))
        self.content = nn.Embedding(num_queries, embed_dims) if learned_content else None
        self._tables = TableCache()

    def forward(self, memory: Memory, num_queries: int | None = None) -> Selection:
        """Choose min(Q, N) queries.

        Args:
            num_queries: Q, any number on the same weights; None: as built.

        Raises:
            ValueError: more queries than there is learned content for.
        """
        anchors_unact, valid = self._anchors(memory)
        valid = valid.to(memory.tokens.dtype)
        with without_gradients():
            index = self._choose(memory, valid, num_queries)

        # all that follows, and so every gradient, is of the chosen tokens alone
        if memory.extent is None:  # the same for every image
            valid, anchors_unact = (gather_shared(x[0], index) for x in (valid, anchors_unact))
        else:
            valid, anchors_unact = (gather_tokens(x, index) for x in (valid, anchors_unact))
        chosen = self._project(gather_tokens(memory.tokens, index), valid)
        boxes_unact = as_float(self.bbox_head(chosen)) + anchors_unact
        iou_logits = self.predict_iou(chosen)
        return Selection(
            Queries(self._content(chosen), boxes_unact.detach()),
            encoder=Predictions(self._classify(chosen)[None], boxes_unact.sigmoid()[None]),
            token_index=index,
            encoder_target=EncoderTarget(
                self.score_target, self.class_agnostic, None if iou_logits is None else iou_logits[None]
            ),
        )

    def _choose(self, memory: Memory, valid: Tensor, num_queries: int | None) -> Tensor:
        """Indices (B, Q) of the tokens that rank best, of all."""
        tokens, padding = self._project(memory.tokens, valid), memory.padding
        logits, iou_logits = self._classify(tokens), self.predict_iou(tokens)
        num_queries, per_token = num_queries or self.num_queries, 1
        if self.rank == 'token_class':  # each class of a token stands for itself
            per_token, logits = logits.shape[-1], logits.flatten(1).unsqueeze(-1)
            iou_logits, padding = (
                None if x is None else x.unsqueeze(-1).expand(-1, -1, per_token).flatten(1)
                for x in (iou_logits, padding)
            )
        index = top_tokens(self.rank_score(logits, iou_logits), num_queries, padding)
        return index if per_token == 1 else torch.div(index, per_token, rounding_mode='trunc')

    def _project(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Tokens (B, N, D) of the memory, those that are not valid as zeros, in the space that heads read."""
        return self.memory_norm(within_range(self.memory_proj(tokens * valid)))

    def _classify(self, tokens: Tensor) -> Tensor:
        return within_range(self.cls_head(tokens))

    def _anchors(self, memory: Memory) -> tuple[Tensor, Tensor]:
        def make() -> tuple[Tensor, Tensor]:
            return grid_anchors(
                memory.spatial_shapes,
                grid_size=self.grid_size,
                eps=self.anchor_eps,
                extent=memory.extent,
                device=memory.tokens.device,
            )

        if memory.extent is not None:  # of this batch alone
            return make()
        return self._tables((memory.spatial_shapes, memory.tokens.device), make)

    def rank_score(self, logits: Tensor, iou_logits: Tensor | None) -> Tensor:
        """The score (B, N) that ranks tokens, of logits (B, N, C) and, where predicted, of the IoU's (B, N).

        Where pairs of token and class are ranked, they are given as N C tokens of one class.
        """
        return logits.max(-1).values

    def predict_iou(self, tokens: Tensor) -> Tensor | None:
        """Logits (B, N) of the IoU of each token's box; None: there is no such branch."""
        return None

    def _content(self, chosen: Tensor) -> Tensor:
        if self.content is None:
            return chosen.detach()
        if chosen.shape[1] > self.content.num_embeddings:
            raise ValueError(
                f'{chosen.shape[1]} queries asked for, but there is learned content for {self.content.num_embeddings}; '
                'ask for at most as many'
            )
        return self.content.weight[: chosen.shape[1]].expand(chosen.shape[0], -1, -1)

    def extra_repr(self) -> str:
        return f'num_classes={self.num_classes}, num_queries={self.num_queries}'


@MODELS.register_module()
class IoUAwareQuerySelector(EncoderTokenSelector):
    """Take the tokens whose class score, trained to be the box's IoU, is highest (RT-DETR, section 4.3).

    The criterion supervises the chosen tokens' class scores with the IoU of their boxes (a varifocal loss), so the
    score learns to tell where both class and box are good, and ranking by it is IoU-aware (equations 2 and 3).
    """

    score_target = 'iou'


@MODELS.register_module()
class ClassScoreQuerySelector(EncoderTokenSelector):
    """Take the tokens whose class score is highest, the score being trained to tell the class alone.

    The "vanilla" selection of Deformable DETR's two stages (section 4.2), Efficient DETR and DINO: nothing ties a high
    score to a good box.
    """

    score_target = 'label'


@MODELS.register_module()
class ScoreTimesIoUQuerySelector(EncoderTokenSelector):
    """Take the tokens whose class probability times predicted IoU is highest.

    An explicit branch beside the class head predicts the IoU (as IoU-Net and PAA do for dense detectors), where
    :class:`IoUAwareQuerySelector` has one score learn both. It is trained, by ``enc_loss_quality``, towards the IoU of
    the matched tokens' own boxes, which are detached there.
    """

    score_target = 'label'

    def __init__(self, *, embed_dims: int = 256, **others: Any) -> None:
        super().__init__(embed_dims=embed_dims, **others)
        self.iou_head = nn.Linear(embed_dims, 1)

    def predict_iou(self, tokens: Tensor) -> Tensor:
        return within_range(self.iou_head(tokens)).squeeze(-1)

    def rank_score(self, logits: Tensor, iou_logits: Tensor | None) -> Tensor:
        assert iou_logits is not None
        return logits.max(-1).values.sigmoid() * iou_logits.sigmoid()

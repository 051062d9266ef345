"""IoU-aware (uncertainty-minimal) query selection."""

from __future__ import annotations

from mmdet.registry import MODELS
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from ...core import gather_tokens, grid_anchors, top_tokens
from ...structures import Memory, Predictions, Queries, Selection
from ..layers import MLP


@MODELS.register_module()
class IoUAwareQuerySelector(BaseModule):
    """Take the encoder tokens whose class score, trained to be the box's IoU, is highest (RT-DETR, section 4.3).

    Every token predicts classes and a box, refined from an anchor on its place in the grid. The Q best by class score
    become queries: content from the token, anchor from the predicted box, both detached. The predictions of the chosen
    tokens are what the criterion supervises; with a varifocal loss their score learns to tell where the box is good,
    which makes the choice IoU-aware (equations 2 and 3).

    Args:
        num_classes: C.
        embed_dims: width D of the memory.
        num_queries: Q, when a call does not say.
        grid_size: side of the finest level's anchors, as a fraction of the input; doubled a level.
        anchor_eps: tokens whose anchor leaves (eps, 1 - eps) are zeroed and held off.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dims: int = 256,
        num_queries: int = 300,
        grid_size: float = 0.05,
        anchor_eps: float = 1e-2,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_classes = num_classes
        self.num_queries = num_queries
        self.grid_size = grid_size
        self.anchor_eps = anchor_eps
        self.memory_proj = nn.Linear(embed_dims, embed_dims)
        self.memory_norm = nn.LayerNorm(embed_dims)
        self.cls_head = nn.Linear(embed_dims, num_classes)
        self.bbox_head = MLP(embed_dims, embed_dims, 4, num_layers=3, zero_output=True)
        nn.init.xavier_uniform_(self.memory_proj.weight)
        nn.init.constant_(self.cls_head.bias, bias_init_with_prob(0.01))

    def forward(self, memory: Memory, num_queries: int | None = None) -> Selection:
        """Choose min(Q, N) queries.

        Args:
            num_queries: Q, any number on the same weights; None: as built.
        """
        anchors_unact, valid = grid_anchors(
            memory.spatial_shapes, grid_size=self.grid_size, eps=self.anchor_eps, device=memory.tokens.device
        )
        tokens = self.memory_norm(self.memory_proj(memory.tokens * valid.to(memory.tokens.dtype)))
        logits = self.cls_head(tokens)
        index = top_tokens(logits.detach(), num_queries or self.num_queries, memory.padding)

        # the box head is a chain of small layers: run it on the chosen tokens alone
        content, logits = gather_tokens(tokens, index), gather_tokens(logits, index)
        boxes_unact = self.bbox_head(content) + self._at(anchors_unact, index).to(content.dtype)
        queries = Queries(content.detach(), boxes_unact.detach())
        return Selection(queries, Predictions(logits[None], boxes_unact.sigmoid()[None]), index)

    @staticmethod
    def _at(anchors_unact: Tensor, index: Tensor) -> Tensor:
        return gather_tokens(anchors_unact.expand(len(index), -1, -1), index)

    def extra_repr(self) -> str:
        return f'num_classes={self.num_classes}, num_queries={self.num_queries}'

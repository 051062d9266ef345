"""A query selector in which levels compete on equal terms."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn

from mmdet_iouquery.core import as_float, gather_tokens, grid_anchors, top_tokens
from mmdet_iouquery.models.layers import MLP
from mmdet_iouquery.structures import EncoderTarget, Memory, Predictions, Queries, Selection


@MODELS.register_module()
class LevelBalancedSelector(BaseModule):
    """Tokens rank by their IoU-aware score relative to the best one of their level.

    So no level goes without queries, and objects of all sizes get some, as they get anchors in ATSS (Zhang et al. 2020,
    algorithm 1), which takes as many candidates from each level.

    Args:
        balance: scores are divided by the level's best to this power; 0: levels are not told apart, as in RT-DETR.
    """

    selects_tokens = True

    def __init__(
        self, *, num_classes: int, embed_dims: int = 256, num_queries: int = 300, balance: float = 1.0
    ) -> None:
        super().__init__()
        self.num_queries, self.balance = num_queries, balance
        self.proj = nn.Sequential(nn.Linear(embed_dims, embed_dims), nn.LayerNorm(embed_dims))
        self.cls_head = nn.Linear(embed_dims, num_classes)
        self.bbox_head = MLP(embed_dims, embed_dims, 4, num_layers=3, zero_output=True)
        nn.init.constant_(self.cls_head.bias, bias_init_with_prob(0.01))

    def forward(self, memory: Memory, num_queries: int | None = None) -> Selection:
        anchors, valid = grid_anchors(memory.spatial_shapes, extent=memory.extent, device=memory.tokens.device)
        tokens = self.proj(memory.tokens * valid)
        logits = self.cls_head(tokens)
        score = as_float(logits.detach()).amax(-1).sigmoid()
        index = top_tokens(self._relative(score, memory), num_queries or self.num_queries, memory.padding)

        chosen = gather_tokens(tokens, index)
        boxes_unact = self.bbox_head(chosen) + gather_tokens(anchors.expand(tokens.shape[0], -1, -1), index)
        return Selection(
            Queries(chosen.detach(), boxes_unact.detach()),
            encoder=Predictions(gather_tokens(logits, index)[None], boxes_unact.sigmoid()[None]),
            token_index=index,
            encoder_target=EncoderTarget('iou'),
        )

    def _relative(self, score: Tensor, memory: Memory) -> Tensor:
        """Scores (B, N), each over the best of its level; padding is no token."""
        if memory.padding is not None:
            score = score.masked_fill(memory.padding, 0.0)
        levels = score.split([height * width for height, width in memory.spatial_shapes], dim=1)
        best = [level.amax(1, keepdim=True).clamp(min=1e-6) ** self.balance for level in levels]
        return torch.cat([level / most for level, most in zip(levels, best)], dim=1)

"""Query selection by class score times a predicted IoU."""

from __future__ import annotations

from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from ...core import within_range
from .encoder_tokens import EncoderTokenSelector


@MODELS.register_module()
class ScoreTimesIoUQuerySelector(EncoderTokenSelector):
    """Take the encoder tokens whose class probability times predicted IoU is highest.

    An explicit branch beside the class head predicts the IoU (as IoU-Net and PAA do for dense detectors), where
    :class:`.iou_aware.IoUAwareQuerySelector` has one score learn both. Class scores are trained towards the label
    alone; the branch, by ``enc_loss_quality``, towards the IoU of the matched tokens' own boxes, which are detached
    there.

    **Trained**: projection, class, box and IoU head, and the encoder below, by the encoder's losses. **Detached**:
    content and anchors of the queries. Arguments as for :class:`.encoder_tokens.EncoderTokenSelector`.
    """

    iou_aware = False

    def __init__(self, *, embed_dims: int = 256, **others: Any) -> None:
        super().__init__(embed_dims=embed_dims, **others)
        self.iou_head = nn.Linear(embed_dims, 1)

    def predict_iou(self, tokens: Tensor) -> Tensor:
        return within_range(self.iou_head(tokens)).squeeze(-1)

    def rank_score(self, logits: Tensor, iou_logits: Tensor | None) -> Tensor:
        assert iou_logits is not None
        return logits.max(-1).values.sigmoid() * iou_logits.sigmoid()

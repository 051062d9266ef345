"""Top-k choices: which tokens become queries, which query-class pairs become detections."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import box_iou_elementwise


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """The rows ``index`` (B, Q) of ``tokens`` (B, N, D), as (B, Q, D)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def gather_shared(tokens: Tensor, index: Tensor) -> Tensor:
    """The rows ``index`` (B, Q) of ``tokens`` (N, D), which all images share, as (B, Q, D)."""
    return F.embedding(index, tokens)


def top_tokens(score: Tensor, num_queries: int, excluded: Tensor | None = None) -> Tensor:
    """Indices (B, Q) of the tokens with the best score, best first; Q = min(num_queries, N).

    Args:
        score: (B, N), of any scale.
        excluded: (B, N) bool, tokens that come last whatever their score (padding).
    """
    if excluded is not None:
        score = score.masked_fill(excluded, torch.finfo(score.dtype).min)
    return score.topk(min(num_queries, score.shape[1]), dim=1).indices


def top_detections(logits: Tensor, max_per_image: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best (query, class) pairs of each image: sigmoid, no void class, one query may give several detections.

    Args:
        logits: (B, Q, C).

    Returns:
        scores in [0, 1], labels in [0, C) and query indices in [0, Q), each (B, K), best first,
        K = min(max_per_image, Q * C).
    """
    num_classes = logits.shape[-1]
    flat = logits.flatten(1).sigmoid()
    scores, index = flat.topk(min(max_per_image, flat.shape[1]), dim=1)
    query = torch.div(index, num_classes, rounding_mode='trunc')
    return scores, index - query * num_classes, query  # no remainder, which is not an operator of every runtime


def without_overlaps(boxes_xyxy: Tensor, threshold: float) -> Tensor:
    """Which boxes (K, 4), best first, stay when each takes away all later ones that overlap it by more than an IoU.

    Returns:
        (K,) bool. Worked out on the host, since each decision waits for those before.
    """
    # A loop of our own: mmcv's nms needs compiled operators, torchvision's a package that neither family requires.
    boxes = boxes_xyxy.detach().cpu()
    overlapping = box_iou_elementwise(boxes[:, None], boxes[None]) > threshold
    kept = torch.ones(boxes.shape[0], dtype=torch.bool)
    for row in range(boxes.shape[0]):
        if kept[row]:
            kept[row + 1 :] &= ~overlapping[row, row + 1 :]
    return kept.to(boxes_xyxy.device)

"""Box formats and overlaps. Every function broadcasts over the leading dimensions; the last one has 4 entries."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def box_cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size (..., 4) to corners (..., 4), in the same unit; a negative size counts as none."""
    centre, size = boxes.split(2, dim=-1)
    half = 0.5 * size.clamp(min=0)
    return torch.cat([centre - half, centre + half], dim=-1)


def box_xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """Corners (..., 4) to centre and size (..., 4), in the same unit."""
    low, high = boxes_xyxy.split(2, dim=-1)
    return torch.cat([0.5 * (low + high), high - low], dim=-1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logits of probabilities ``x`` in [0, 1]; both sides are held at ``eps`` or more, so the result is finite.

    With the usual ``eps`` the result lies within +-11.52. An ``x`` outside [0, 1] counts as the nearer end.
    """
    x = x.clamp(min=0.0, max=1.0)
    return torch.log(x.clamp(min=eps) / (1.0 - x).clamp(min=eps))


def _areas(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union areas of ``a`` and ``b`` (broadcast), each (...)."""
    low = torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area_a = (a_xyxy[..., 2:] - a_xyxy[..., :2]).prod(-1)
    area_b = (b_xyxy[..., 2:] - b_xyxy[..., :2]).prod(-1)
    return intersection, area_a + area_b - intersection


def box_iou_elementwise(a_xyxy: Tensor, b_xyxy: Tensor, eps: float = 1e-7) -> Tensor:
    """Intersection over union in [0, 1] of each box of ``a`` with its partner in ``b``.

    The union is held at ``eps`` or more, so that two boxes without area have IoU 0 and not NaN.
    """
    intersection, union = _areas(a_xyxy, b_xyxy)
    return intersection / union.clamp(min=eps)


def generalized_box_iou_elementwise(a_xyxy: Tensor, b_xyxy: Tensor, eps: float = 1e-7) -> Tensor:
    """Generalised IoU in [-1, 1] (Rezatofighi et al. 2019, eq. 5) of each box of ``a`` with its partner in ``b``."""
    intersection, union = _areas(a_xyxy, b_xyxy)
    low = torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    hull = (high - low).clamp(min=0).prod(-1)
    return intersection / union.clamp(min=eps) - (hull - union) / hull.clamp(min=eps)


def distance_box_iou_elementwise(a_xyxy: Tensor, b_xyxy: Tensor, eps: float = 1e-7) -> Tensor:
    """IoU less the squared distance of the centres over the squared diagonal of the hull, in [-1, 1] (DIoU, eq. 7)."""
    low = torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    diagonal = (high - low).pow(2).sum(-1)
    shift = 0.5 * (a_xyxy[..., :2] + a_xyxy[..., 2:] - b_xyxy[..., :2] - b_xyxy[..., 2:])
    return box_iou_elementwise(a_xyxy, b_xyxy, eps) - shift.pow(2).sum(-1) / diagonal.clamp(min=eps)


def complete_box_iou_elementwise(a_xyxy: Tensor, b_xyxy: Tensor, eps: float = 1e-7) -> Tensor:
    """DIoU less a term for differing aspect ratios, in [-2, 1] (Zheng et al. 2020, eq. 8 to 11)."""
    angle_a, angle_b = (
        torch.atan(width / height.clamp(min=eps))
        for width, height in ((x[..., 2:] - x[..., :2]).unbind(-1) for x in (a_xyxy, b_xyxy))
    )
    v = 4 / math.pi**2 * (angle_a - angle_b) ** 2
    alpha = v / (1 - box_iou_elementwise(a_xyxy, b_xyxy, eps) + v).clamp(min=eps)
    return distance_box_iou_elementwise(a_xyxy, b_xyxy, eps) - alpha * v


OVERLAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    'iou': box_iou_elementwise,
    'giou': generalized_box_iou_elementwise,
    'diou': distance_box_iou_elementwise,
    'ciou': complete_box_iou_elementwise,
}
"""By the names that a config gives them."""

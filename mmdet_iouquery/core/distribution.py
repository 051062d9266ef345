"""Box edges as distributions: fine-grained distribution refinement of D-FINE (Peng et al. 2024, section 4).

Each edge of a reference box is moved outwards by the mean of a distribution over R + 1 fixed distances, the values W of
the bins. Distances count in parts of the reference box: ``reg_scale`` of them are its width, or its height.
Edges come as left, top, right, bottom.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import box_cxcywh_to_xyxy
from .precision import as_float


def bin_values(reg_max: int, reg_scale: float, up: float = 0.5, device: torch.device | str | None = None) -> Tensor:
    """The distances W (R + 1,) of the bins: odd, close together at 0, growing geometrically away from it.

    With u = ``up * reg_scale`` they end at +-2 u, and the second and the last but one are +-u.

    Args:
        reg_max: R, the number of intervals.
        reg_scale: parts that a reference box's width or height is divided into.
        up: where the fine bins end, as a fraction of the width or height.
        device: where the result is made.

    Raises:
        ValueError: ``reg_max`` is odd or less than 4, or ``reg_scale`` or ``up`` is not above 0.
    """
    if reg_max < 4 or reg_max % 2:
        raise ValueError(f'reg_max must be even, so that a bin is 0, and at least 4, got {reg_max}')
    if reg_scale <= 0 or up <= 0:
        raise ValueError(f'reg_scale and up must be above 0, got {reg_scale} and {up}')
    fine = up * reg_scale
    powers = torch.arange(reg_max // 2, dtype=torch.float64) * 2 / (reg_max - 2)
    right = torch.cat([(fine + 1) ** powers - 1, torch.tensor([2 * fine], dtype=torch.float64)])
    return torch.cat([-right[1:].flip(0), right]).to(device, torch.float32)


def expected_distances(corners: Tensor, values: Tensor) -> Tensor:
    """The means (..., 4) of distributions with logits ``corners`` (..., 4, R + 1) over ``values`` (R + 1,).

    In single precision at least.
    """
    # a matrix product would be in half precision under autocast
    return (as_float(corners).softmax(-1) * values).sum(-1)


def distances_to_boxes(references: Tensor, distances: Tensor, reg_scale: float) -> Tensor:
    """``references`` (..., 4), each edge moved outwards by its distance (..., 4); no distance: the reference itself.

    Edges may pass each other, where distances lie below ``-reg_scale / 2``: the size is negative then.
    """
    centre, size = as_float(references).split(2, dim=-1)
    near, far = as_float(distances).split(2, dim=-1)
    unit = size / reg_scale
    return torch.cat([centre + (far - near) * unit / 2, size + (near + far) * unit], dim=-1)


class EdgeTargets(NamedTuple):
    """What an edge's distribution learns: the mean it should have, shared between two neighbouring bins."""

    left_bin: Tensor
    """(..., 4) int64 in [0, R - 1], the lower of the two."""
    right_share: Tensor
    """(..., 4) in [0, 1], probability of the bin after it; the lower one has the rest."""


@torch.no_grad()
def edge_targets(references: Tensor, truth: Tensor, values: Tensor, reg_scale: float) -> EdgeTargets:
    """Targets that move the edges of ``references`` (..., 4) to those of ``truth`` (..., 4).

    Beyond the ends of ``values`` (R + 1,) the outermost bin has it all.
    """
    centre, size = as_float(references).split(2, dim=-1)
    low, high = box_cxcywh_to_xyxy(as_float(truth)).split(2, dim=-1)
    unit = size / reg_scale + 1e-16
    distances = torch.cat([(centre - low) / unit, (high - centre) / unit], dim=-1) - reg_scale / 2
    values = values.to(distances.dtype)
    left_bin = (torch.bucketize(distances, values, right=True) - 1).clamp(0, values.shape[0] - 2)
    left, right = values[left_bin], values[left_bin + 1]
    return EdgeTargets(left_bin, ((distances - left) / (right - left)).clamp(0, 1))


def edge_cross_entropy(corners: Tensor, targets: EdgeTargets) -> Tensor:
    """Cross-entropy (..., 4) of distributions with logits ``corners`` (..., 4, R + 1) against ``targets`` (..., 4)."""
    bins = torch.stack([targets.left_bin, targets.left_bin + 1], dim=-1)
    left, right = as_float(corners).log_softmax(-1).gather(-1, bins).unbind(-1)
    return (targets.right_share - 1) * left - targets.right_share * right


def distillation_divergence(student: Tensor, teacher: Tensor, temperature: float = 5.0) -> Tensor:
    """Kullback-Leibler divergence (..., 4) of the student's distributions from the teacher's, both softened.

    ``temperature`` divides the logits (..., 4, R + 1) of both; its square, that keeps the size of gradients (Hinton et
    al. 2015), multiplies the result. The teacher gets gradients, too: detach it.
    """
    log_student = (as_float(student) / temperature).log_softmax(-1)
    log_teacher = (as_float(teacher) / temperature).log_softmax(-1)
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(-1)


def balance(matched_edges: float, other_edges: float, batch: int) -> tuple[float, float]:
    """Weights of the matched and of the other edges in :func:`balanced_mean`: roots of their numbers for 8 images.

    Args:
        matched_edges, other_edges: how many there are in the batch.
        batch: B, the images that they are counted in.
    """
    return (matched_edges * 8 / batch) ** 0.5, (other_edges * 8 / batch) ** 0.5


def balanced_mean(loss: Tensor, matched: Tensor, matched_weight: float, other_weight: float) -> Tensor:
    """Each layer's mean loss (L,) of the matched edges and of the others, averaged with weights.

    A group without edges adds nothing, but its weight counts.

    Args:
        loss: (L, B, Q), summed over the four edges of each query.
        matched: (L, B, Q) bool.
        matched_weight, other_weight: see :func:`balance`.
    """
    total = loss.new_zeros(loss.shape[0])
    for group, weight in ((matched, matched_weight), (~matched, other_weight)):
        num_edges = 4 * group.sum((1, 2))
        total = total + weight * torch.where(group, loss, 0.0).sum((1, 2)) / num_edges.clamp(min=1)
    return total / (matched_weight + other_weight)

"""Deformable attention by mmcv's compiled operator, where mmcv has it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...compat import ops_state
from ...core.deformable_attention import Backend, register_backend


def attend(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    num_points: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    sampling: str,  # noqa: ARG001  back ends are called alike
) -> Tensor:
    """Back end of :func:`~mmdet_iouquery.core.multi_scale_deformable_attention`, in the locations' type."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    shapes = torch.tensor([*spatial_shapes], device=value.device)
    areas = shapes.prod(1)
    levels = (len(num_points), num_points[0])
    attended = MultiScaleDeformableAttnFunction.apply(
        value.to(locations.dtype).contiguous(),
        shapes,
        areas.cumsum(0) - areas,
        locations.unflatten(3, levels).contiguous(),
        weights.unflatten(3, levels).contiguous(),
        value.shape[0],  # images that it takes at once
    )
    return attended.to(value.dtype)


def missing(device: torch.device) -> str | None:
    """Why it cannot run on a device; None: it can."""
    if ops_state() != 'compiled':
        return 'mmcv has no compiled operators'
    return None if device.type == 'cuda' else 'it runs on CUDA devices only'


def can(num_points: Sequence[int], sampling: str) -> bool:
    """Bilinear, and as many points on every level."""
    return sampling == 'bilinear' and len(set(num_points)) == 1


register_backend('mmcv', Backend(attend, missing, can))

"""The choice among back ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.jit import is_tracing  # type: ignore[attr-defined]  # documented, but in no __all__

from . import embedding_bag, gather, grid_sample, triton_kernels

SAMPLINGS = ('bilinear', 'discrete')

Attend = Callable[[Tensor, Sequence[tuple[int, int]], Sequence[int], Tensor, Tensor, str], Tensor]


def _runs_anywhere(device: torch.device) -> str | None:
    return None


def _always(num_points: Sequence[int], sampling: str) -> bool:
    return True


class Backend(NamedTuple):
    """One way to compute deformable attention."""

    attend: Attend
    """Takes the arguments of :func:`multi_scale_deformable_attention` in its order, points flat: value, spatial_shapes,
    num_points, locations (B, Q, H, S, 2), weights (B, Q, H, S), sampling."""
    missing: Callable[[torch.device], str | None] = _runs_anywhere
    """Why it cannot run on a device, in a few words; None: it can."""
    can: Callable[[Sequence[int], str], bool] = _always
    """Whether it knows the points of each level and the sampling."""
    exports: bool = False
    """Whether exporters and tracers know all that it does, for any number of images."""


BACKENDS: dict[str, Backend] = {
    'triton': Backend(triton_kernels.attend, triton_kernels.missing),
    'embedding_bag': Backend(embedding_bag.attend),
    'grid_sample': Backend(grid_sample.attend, exports=True),
    'gather': Backend(gather.attend, exports=True),
}
"""By name. :mod:`mmdet_iouquery.models` adds 'mmcv', the compiled operator."""

_PREFERRED = {'cuda': ('triton', 'mmcv', 'grid_sample'), 'cpu': ('embedding_bag',)}


def register_backend(name: str, backend: Backend) -> None:
    """Add a back end, or put one in the place of another."""
    BACKENDS[name] = backend


def why_not(name: str, device: torch.device, num_points: Sequence[int], sampling: str) -> str | None:
    """Why a back end cannot do this, in a few words; None: it can."""
    backend = BACKENDS.get(name)
    if backend is None:
        return f'there is none of that name, but {", ".join(BACKENDS)}'
    if not backend.can(num_points, sampling):
        return f'it does not know {sampling} sampling of {tuple(num_points)} points a level'
    return backend.missing(device)


def choose_backend(
    device: torch.device, num_points: Sequence[int], sampling: str = 'bilinear', name: str | None = None
) -> str:
    """The back end that is used: the one named, otherwise the fastest that runs on the device.

    What is exported or traced is always ``grid_sample`` or, where it is named, ``gather``: what exporters know.

    Raises:
        ValueError: the one named cannot do this; the message says why.
    """
    if name is not None:
        reason = why_not(name, device, num_points, sampling)
        if reason is not None:
            raise ValueError(
                f'deformable attention by {name!r} cannot run on {device}: {reason}; name another attention_backend, '
                'or leave it out'
            )
    is_exporting = getattr(torch.compiler, 'is_exporting', torch.compiler.is_compiling)  # came with torch 2.7
    if is_exporting() or torch.onnx.is_in_onnx_export() or is_tracing():
        return name if name is not None and BACKENDS[name].exports else 'grid_sample'
    if name is not None:
        return name
    preferred = _PREFERRED.get(device.type, ())
    return next(
        (backend for backend in preferred if why_not(backend, device, num_points, sampling) is None), 'grid_sample'
    )


def multi_scale_deformable_attention(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    num_points: Sequence[int] | None = None,
    sampling: str = 'bilinear',
    backend: str | None = None,
) -> Tensor:
    """Weighted sum of values read at fractional places of several maps; P points a level and head.

    Letters as in :mod:`mmdet_iouquery.core`, with V = number of levels.

    Args:
        value: (B, N, H, D / H), the levels' tokens one after the other, row by row.
        spatial_shapes: height and width of each of the V levels; their products sum to N.
        sampling_locations: (B, Q, H, V, P, 2), x and y, [0, 1] from a map's outer edge to the other.
        attention_weights: (B, Q, H, V, P), of the locations' type.
        num_points: points of each level, where levels differ in them; locations are then (B, Q, H, S, 2), level by
            level, and weights (B, Q, H, S).
        sampling: 'bilinear' between pixels, outside a map everything is 0; or 'discrete', the one pixel
            ``int(x * width + 0.5)`` held inside the map, without a gradient for the location (RT-DETRv2, section 3).
        backend: a name of :data:`BACKENDS`; None: see :func:`choose_backend`.

    Returns:
        (B, Q, D), of the value's type. Places are computed in the locations', as half precision is too coarse for them.

    Raises:
        ValueError: the ``backend`` cannot run here.
    """
    if num_points is None:
        num_points = [sampling_locations.shape[4]] * len(spatial_shapes)
        sampling_locations, attention_weights = sampling_locations.flatten(3, 4), attention_weights.flatten(3, 4)
    name = choose_backend(value.device, num_points, sampling, backend)
    return BACKENDS[name].attend(value, spatial_shapes, num_points, sampling_locations, attention_weights, sampling)

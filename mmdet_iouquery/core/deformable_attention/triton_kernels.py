"""Deformable attention by Triton kernels, of which this much can be imported without Triton."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence

import torch
from torch import Tensor


def attend(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    num_points: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    sampling: str,
) -> Tensor:
    """Back end of :func:`.multi_scale_deformable_attention`.

    Sums are made in float32, or in float64 if value or locations are. Those of the value's gradient are made by atomic
    additions, so that its last bits differ from run to run. Locations of discrete sampling get no gradient.
    Infinite locations are like others far outside a map.
    """
    from .triton_operator import attention

    sizes = [size for shape in spatial_shapes for size in shape]
    return attention(value, sizes, list(num_points), locations, weights, sampling == 'discrete')


def missing(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, in a few words; None: they can."""
    if _LACKING is not None or _INTERPRETED:
        return _LACKING
    if device.type != 'cuda' or not torch.cuda.is_available():
        return 'no CUDA device'
    if torch.cuda.get_device_properties(device).major < 7:
        return 'triton needs compute capability 7.0'
    return None


def _lacking() -> str | None:
    """What this machine lacks, whatever the device."""
    if torch.__version__ < '2.8':  # its Triton, 3.3, cannot compile these kernels
        return 'torch is older than 2.8'
    if importlib.util.find_spec('triton') is None:
        return 'triton is not installed'
    compiler = os.environ.get('CC') or shutil.which('gcc') or shutil.which('clang')
    if os.name == 'posix' and not compiler and not _INTERPRETED:
        return 'triton needs a C compiler'
    return None


_INTERPRETED = os.environ.get('TRITON_INTERPRET', '').lower() in ('1', 'true', 'on', 'yes', 'y')
# once, as it looks at files, and an attention asks each time
_LACKING = _lacking()

"""Half precision on processors without instructions for it."""

from __future__ import annotations

import warnings

import torch

from ..compat import computes_fast


def warn_if_slow(dtype: torch.dtype, device: torch.device, remedy: str) -> None:
    """Warn where half precision takes several times as long as single precision: on a CPU without instructions for it.

    Args:
        dtype: that a model is to compute in.
        device: on which.
        remedy: what to do instead.
    """
    if device.type == 'cpu' and not computes_fast(dtype):
        name = str(dtype).removeprefix('torch.')
        warnings.warn(
            f'{name} will take several times as long as float32: this CPU has no instructions for it; {remedy}',
            stacklevel=3,
        )

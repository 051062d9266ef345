"""Half precision on processors without instructions for it."""

from __future__ import annotations

import torch

from ..compat import computes_fast


def note_if_slow(dtype: torch.dtype, device: torch.device) -> str:
    """A note where half precision is several times as slow as single: on a CPU without instructions for it.

    Args:
        dtype: that a model is to compute in.
        device: on which.

    Returns:
        The note, for a remedy to follow; empty: there is none.
    """
    if device.type != 'cpu' or computes_fast(dtype):
        return ''
    name = str(dtype).removeprefix('torch.')
    return f'{name} will take several times as long as float32: this CPU has no instructions for it'

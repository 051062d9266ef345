"""Half precision: what has to be computed in single precision, and what has to be kept inside the range of float16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

FLOAT16_MAX = 65504.0
"""The largest finite number of float16."""


def as_float(x: Tensor) -> Tensor:
    """``x`` in single precision, if it is in half precision (float16 or bfloat16); otherwise as it is.

    For what half precision is too coarse for: just below 1, numbers are 1 / 2048 apart in float16 and 1 / 256 in
    bfloat16, which is more than two pixels of an image of 640.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def within_range(x: Tensor) -> Tensor:
    """``x`` with float16's infinities replaced by its largest finite numbers; other types are returned as they are.

    A sum past 65504 is infinite in float16, and the next difference of infinities NaN. Held there instead, it is only a
    very large number, which the next norm brings back.
    """
    return x.clamp(min=-FLOAT16_MAX, max=FLOAT16_MAX) if x.dtype == torch.float16 else x


@contextmanager
def without_gradients() -> Iterator[None]:
    """``torch.no_grad`` for one part of a forward pass that is trained.

    Under autocast, versions of torch keep the weights they have cast for the rest of the pass, those cast here without
    a graph, and later calls of the same modules would then train nothing. Here none are kept.
    """
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(kept)

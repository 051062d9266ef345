"""Scores as precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def piecewise_linear(x: Tensor, knots: Sequence[float], values: Sequence[float]) -> Tensor:
    """The function that goes straight from each (knot, value) to the next one.

    Args:
        x: of any shape, between the first knot and the last.
        knots: rising strictly, at least two.
        values: as many.

    Returns:
        As ``x``, in double precision: in single precision neighbouring scores would become equal where the function
        rises slowly, and equal scores are ranked otherwise.
    """
    x = x.double()
    places, heights = x.new_tensor(knots), x.new_tensor(values)
    right = torch.searchsorted(places, x).clamp(1, len(knots) - 1)
    left = right - 1
    share = (x - places[left]) / (places[right] - places[left])
    return heights[left] + share * (heights[right] - heights[left])

"""How far two computations of the same numbers may be apart, by the type they are in.

Tests that are stricter, or that lose more on the way (in gradients, pixels, filtered convolutions, a training), state
bounds of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tolerance(NamedTuple):
    """An entry may differ by ``atol + rtol * abs(expected)``."""

    rtol: float
    atol: float


TOLERANCES = {
    # a formula or a layer against its definition: sums in another order, of numbers below some forty
    torch.float64: Tolerance(rtol=0, atol=1e-12),
    # layers and whole detectors, whose logits are below ten: tenfold what is seen
    torch.float32: Tolerance(rtol=0, atol=1e-5),
    # halves: one rounding, which is the distance of 1 from its lower neighbour; a test says how many there are
    torch.float16: Tolerance(rtol=2**-11, atol=1e-5),
    torch.bfloat16: Tolerance(rtol=2**-8, atol=1e-5),
}


def within(dtype: torch.dtype, roundings: int = 1) -> dict[str, float]:
    """``rtol`` and ``atol`` of ``torch.testing.assert_close`` and of NumPy's functions, for so many roundings."""
    rtol, atol = TOLERANCES[dtype]
    return {'rtol': roundings * rtol, 'atol': atol}

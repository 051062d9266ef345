"""How far two computations of the same numbers may be apart: by the type they are in, or by what they are.

Tests that are stricter, or that lose more on the way (in filtered convolutions, a training), state bounds of their own,
and why; ``test_tolerances.py`` looks for those that do not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch


class Tolerance(NamedTuple):
    """An entry may differ by ``atol + rtol * abs(expected)``."""

    rtol: float
    atol: float


TOLERANCES: dict[torch.dtype | str, Tolerance] = {
    # a formula or a layer against its definition: sums in another order, of numbers below some forty
    torch.float64: Tolerance(rtol=0, atol=1e-12),
    # layers and whole detectors, whose logits are below ten: tenfold what is seen
    torch.float32: Tolerance(rtol=0, atol=1e-5),
    # halves: one rounding, which is the distance of 1 from its lower neighbour; a test says how many there are
    torch.float16: Tolerance(rtol=2**-11, atol=1e-5),
    torch.bfloat16: Tolerance(rtol=2**-8, atol=1e-5),  # of eight bits
    # of doubles that may be small, as learning rates: the same, in parts of themselves
    'doubles': Tolerance(rtol=1e-12, atol=0),
    # of numbers within 1 that a few operations of single precision make, as scores and sines: some ten roundings
    'unit': Tolerance(rtol=0, atol=1e-6),
    # of single-precision boxes in px: eight roundings, and as much as in an image of 100 px
    'px': Tolerance(rtol=2**-21, atol=5e-5),
    # of a loss or a gradient in single precision: terms are summed in another order
    'sum': Tolerance(rtol=1e-5, atol=0),
    # of maps that other code gave of the same weights in single precision, of numbers below ten
    'reference map': Tolerance(rtol=1e-4, atol=1e-5),
    'reference sum': Tolerance(rtol=1e-4, atol=0),  # and of its losses and norms of gradients
}


def within(what: torch.dtype | str = torch.float32, roundings: int = 1) -> dict[str, Any]:
    """``rtol`` and ``atol`` of ``torch.testing.assert_close`` and of NumPy's functions, for so many roundings."""
    rtol, atol = TOLERANCES[what]
    return {'rtol': roundings * rtol, 'atol': atol}


def about(expected: Any, what: torch.dtype | str = torch.float32) -> Any:
    """``pytest.approx`` with the same, of numbers that are no tensor."""
    rtol, atol = TOLERANCES[what]
    return pytest.approx(expected, rel=rtol, abs=atol)

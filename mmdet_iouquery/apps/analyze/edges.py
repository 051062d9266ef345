"""What a decoder that refines distributions says of the four edges of each query's box, in px of the image.

Edges come as left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...core import as_float
from ...structures import Refinement

Numbers = NDArray[Any]
EDGES = ('left', 'top', 'right', 'bottom')
OUTWARDS = np.array([-1.0, -1.0, 1.0, 1.0])
"""The way of each edge that makes a box larger."""


class EdgeDistributions(NamedTuple):
    """The distributions of D-FINE's decoder (section 4.1) over R + 1 bins."""

    initial_px: Numbers
    """(Q, 4), the boxes that all layers refine: x1, y1, x2, y2."""
    distances_px: Numbers
    """(Q, 4, R + 1), how far outwards of the initial box's edge each bin lies, ascending."""
    probabilities: Numbers
    """(L, Q, 4, R + 1), of the bins, after each layer; each edge's sum to 1."""

    @property
    def means_px(self) -> Numbers:
        """(L, Q, 4), how far outwards of the initial box's edge each layer puts the edge."""
        return (self.probabilities * self.distances_px).sum(-1)


def edge_distributions(refinement: Refinement, to_px: Callable[[Tensor], Numbers]) -> EdgeDistributions:
    """Those of the first image of a batch.

    Args:
        to_px: normalised cx, cy, w, h (..., 4) to corners in px.
    """
    initial_px = to_px(refinement.initial_boxes[0, 0])
    sides = np.tile(initial_px[:, 2:] - initial_px[:, :2], 2)
    units = refinement.bin_values.double().cpu().numpy() / refinement.reg_scale
    probabilities = as_float(refinement.corners[:, 0]).double().softmax(-1).cpu().numpy()
    return EdgeDistributions(initial_px, sides[..., None] * units, probabilities)

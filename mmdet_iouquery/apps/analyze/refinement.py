"""How decoder layers refine the boxes that end up on objects: numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ...evaluation.selection_quality import iou_of
from .trace import QueryTrace

Numbers = NDArray[Any]
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


class Refinement(NamedTuple):
    """Of K objects, each with the query that ends up on it, through S stages: the start, then each decoder layer."""

    ious: Numbers
    """(S, K), IoU of the query's box with the object; NaN where the queries start from no boxes."""
    scores: Numbers
    """(S, K), probability of the object's class (at the start the encoder's); NaN where there is none."""
    shifts: Numbers
    """(S - 1, K), how far the box's centre moves from a stage to the next, in sides of a square of the object's area;
    NaN from a start without boxes."""

    @classmethod
    def joined(cls, parts: Iterable[Refinement]) -> Refinement:
        """Those of several images."""
        return cls(*(np.concatenate(x, axis=1) for x in zip(*parts)))


def matched_queries(trace: QueryTrace) -> tuple[Numbers, Numbers]:
    """Objects and the queries that end up on them, (K,) int each, K at most the number of either.

    One to one, so that the sum of IoU times the score of the object's class, of the last layer, is largest; pairs that
    do not overlap are left out.
    """
    last = trace.layers[-1]
    fit = iou_of(last.boxes_px[None], trace.objects.boxes_px[:, None])
    objects, queries = linear_sum_assignment(-fit * last.class_scores[:, trace.objects.labels].T)
    overlap = fit[objects, queries] > 0
    return objects[overlap], queries[overlap]


def refinement(trace: QueryTrace) -> Refinement:
    """A traced image's matched queries, stage by stage."""
    objects, queries = matched_queries(trace)
    truth, labels = trace.objects.boxes_px[objects], trace.objects.labels[objects]
    boxes = [layer.boxes_px[queries] for layer in trace.layers]
    start = trace.anchors_px[queries] if trace.anchors_px is not None else np.full((len(queries), 4), np.nan)
    boxes = [start, *boxes]
    scores = [_start_scores(trace, queries, labels)]
    scores += [layer.class_scores[queries, labels] for layer in trace.layers]
    side = np.sqrt((truth[:, 2:] - truth[:, :2]).prod(1))
    centres = np.stack([0.5 * (box[:, :2] + box[:, 2:]) for box in boxes])
    shifts = np.linalg.norm(np.diff(centres, axis=0), axis=-1) / side
    return Refinement(np.stack([iou_of(box, truth) for box in boxes]), np.stack(scores), shifts)


def summary(values: Numbers) -> list[dict[str, float | None]]:
    """Mean and quantiles of each stage (S, K): one dict a stage, with None where there is nothing to sum up."""
    rows: list[dict[str, float | None]] = []
    for stage in values:
        known = stage[np.isfinite(stage)]
        row: dict[str, float | None] = {'mean': float(known.mean()) if len(known) else None}
        for quantile in QUANTILES:
            row[f'q{round(100 * quantile):02d}'] = float(np.quantile(known, quantile)) if len(known) else None
        rows.append(row)
    return rows


def _start_scores(trace: QueryTrace, queries: Numbers, labels: Numbers) -> Numbers:
    if trace.encoder is None:
        return np.full(len(queries), np.nan)
    scores = trace.encoder.class_scores[queries]
    return scores[:, 0] if scores.shape[1] == 1 else scores[np.arange(len(queries)), labels]

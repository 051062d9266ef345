"""Time several ways to do the same work, in turn, so that what the machine does beside it hits them all."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from ..compat import dispatch_mode

Sides = Mapping[str, Callable[[], object]]


class Timing(NamedTuple):
    """Seconds of one side."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""


def time_in_turn(sides: Sides, rounds: int) -> dict[str, Timing]:
    """Call each side once a round, in the order given, after one call each that is not timed.

    Raises:
        ValueError: fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f'rounds must be at least 1, got {rounds}')
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for timed in range(rounds + 1):
        for name, call in sides.items():
            spent = _seconds(call)
            if timed:
                seconds[name].append(spent)
    return {name: timing_of(spent) for name, spent in seconds.items()}


def timing_of(seconds: list[float]) -> Timing:
    """Median and quartiles."""
    if len(seconds) == 1:
        return Timing(*seconds * 3)
    low, median, high = statistics.quantiles(seconds, n=4, method='inclusive')
    return Timing(median, low, high)


def _seconds(call: Callable[[], object]) -> float:
    _wait()
    start = time.perf_counter()
    call()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rows_of(timings: Mapping[str, Timing], against: str | None, **settings: Any) -> list[dict[str, Any]]:
    """A row for each side; ``ratio`` is its median over that of the side ``against``, if that was timed."""
    base = timings[against].median if against is not None and against in timings else None
    return [
        {
            **settings,
            'side': name,
            'median_s': timing.median,
            'low_s': timing.low,
            'high_s': timing.high,
            'ratio': None if base is None else timing.median / base,
        }
        for name, timing in timings.items()
    ]


@contextmanager
def counted_operations() -> Iterator[Counter[str]]:
    """Count what torch dispatches inside, forward and backward, views left out: about one kernel launch each."""
    counter = _CountOperations()
    with counter:
        yield counter.operations


class _CountOperations(dispatch_mode()):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not func.is_view:
            self.operations[str(func)] += 1
        return func(*args, **(kwargs or {}))

"""A process for each side of a measurement, so that none has what another has loaded or set."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from .reference import NAME, Reference

AUTOCAST = ', bfloat16 autocast'
held: dict[str, Any] = {}
"""What the process of a side holds, by name."""


def process(
    name: str, reference: Reference | None, begin: Callable[[Reference | None], Mapping[str, Any]]
) -> ProcessPoolExecutor:
    """A process of as many threads as this one, to hold what ``begin`` returns; ``begin`` is called in it.

    It is given the authors' code where the side is theirs: a process of ours has none of it.
    """
    given = torch.get_num_threads(), begin, reference if name.startswith(NAME) else None
    return ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), initializer=_begin, initargs=given)


def ask(side: ProcessPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns in a process."""
    return side.submit(function, *arguments).result()


def run(name: str) -> None:
    """Call what this process holds, to its end on the device."""
    held[name]()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _begin(threads: int, begin: Callable[..., Mapping[str, Any]], reference: Reference | None) -> None:
    torch.set_num_threads(threads)
    held.update(begin(reference))

"""A training step: forward, loss, backward."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..engine.compare.cost import peak_memory_mb
from .models import Batch, detector
from .reference import NAME, Reference
from .timing import rows_of, time_in_turn

OURS = 'ours'
AUTOCAST = ', bfloat16 autocast'


def training(
    reference: Reference | None, *, depth: int, batch: int, side: int, objects: int, rounds: int
) -> list[dict[str, Any]]:
    """Time a step in single precision and under bfloat16 autocast; and its peak memory, in processes of their own.

    ``memory_mb`` is the process's peak on a CPU, what torch took on a GPU.
    """
    names = [OURS] if reference is None else [NAME, OURS]
    settings = dict(depth=depth, batch=batch, side=side, objects=objects)
    folder = None if reference is None else str(reference.folder)
    sides = {name: _step(name, folder, **settings) for one in names for name in (one, one + AUTOCAST)}
    rows = rows_of(time_in_turn(sides, rounds), NAME, model=f'R{depth}', batch=batch, side_px=side, objects=objects)
    for row in rows:
        row['memory_mb'] = _in_own_process(partial(_peak, row['side'], folder, **settings))
    return rows


def _step(name: str, folder: str | None, *, depth: int, batch: int, side: int, objects: int) -> Callable[[], None]:
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    half, given = name.endswith(AUTOCAST), Batch(batch, side, objects, device)
    model: Any
    if name.startswith(OURS):
        model = detector(depth).train().to(device)
        loss = partial(_our_loss, model, given)
    else:
        reference = Reference(str(folder))
        model = reference.model(depth, None).train().to(device)
        loss = partial(reference.loss, model, given.images, reference.targets(given.labels, given.boxes))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            total = loss()
        total.backward()

    return step


def _our_loss(model: Any, given: Batch) -> Tensor:
    return sum(model.loss(given.images, given.samples()).values())


def _peak(name: str, folder: str | None, **settings: int) -> float:
    step = _step(name, folder, **settings)
    for _ in range(2):
        step()
    return peak_memory_mb()


def _in_own_process(call: Callable[[], float]) -> float:
    """A fresh one, as a process's peak never falls again."""
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(call)

"""A training step: forward, loss, backward."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ..engine.compare.cost import MB, peak_memory_mb
from .models import Batch, detector
from .reference import NAME, Reference
from .timing import rows_of, time_in_turn

OURS = 'ours'
AUTOCAST = ', bfloat16 autocast'


def training(
    reference: Reference | None, *, depth: int, batch: int, side: int, objects: int, rounds: int
) -> list[dict[str, Any]]:
    """Time a step in single precision and under bfloat16 autocast; and its peak memory, in processes of their own.

    ``tensors_mb`` is the peak of what tensors held, ``memory_mb`` the process's on a CPU: with its libraries, and what
    the C library keeps of freed memory, which differs by some 5 % from run to run.
    """
    names = [OURS] if reference is None else [NAME, OURS]
    settings = dict(depth=depth, batch=batch, side=side, objects=objects)
    folder = None if reference is None else str(reference.folder)
    sides = {name: _step(name, folder, **settings) for one in names for name in (one, one + AUTOCAST)}
    rows = rows_of(time_in_turn(sides, rounds), NAME, model=f'R{depth}', batch=batch, side_px=side, objects=objects)
    for row in rows:
        row['tensors_mb'], row['memory_mb'] = _in_own_process(partial(_peaks, row['side'], folder, **settings))
    return rows


def _step(name: str, folder: str | None, *, depth: int, batch: int, side: int, objects: int) -> Callable[[], nn.Module]:
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

    def step() -> nn.Module:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            total = loss()
        total.backward()
        return model

    return step


def _our_loss(model: Any, given: Batch) -> Tensor:
    return sum(model.loss(given.images, given.samples()).values())


def _peaks(name: str, folder: str | None, **settings: int) -> tuple[float, float]:
    """Of tensors and of the process, in 10^6 bytes."""
    step = _step(name, folder, **settings)
    for _ in range(2):
        model = step()
    process = peak_memory_mb()
    if torch.cuda.is_available():  # which counts tensors anyway
        return process, process
    of_model = sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    return (of_model + peak_of_tensors(step)) / MB, process


def peak_of_tensors(call: Callable[[], object]) -> int:
    """The most bytes that tensors made by a call on the CPU held at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    events = recorded.profiler.kineto_results.events()
    sizes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == '[memory]']
    return max(accumulate((size for _, size in sorted(sizes, key=itemgetter(0))), initial=0))


def _in_own_process(call: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """A fresh one, as a process's peak never falls again."""
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(call)

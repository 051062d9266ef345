"""A training step: forward, loss, backward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import accumulate
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ...cpu import accelerate_training, keep_freed_memory
from ..cost import MB, peak_memory_mb
from ..timing import rows_of, time_in_turn
from .models import Batch, detector
from .reference import NAME, Reference
from .side_processes import AUTOCAST, ask, held, process, run

OURS = 'ours'
KEPT, GIVEN_BACK = ', freed memory kept', ', freed memory given back'


def training(
    reference: Reference | None, *, model_name: str, batch: int, side: int, objects: int, rounds: int
) -> list[dict[str, Any]]:
    """Time a step in single precision and under bfloat16 autocast, and its memory; each side in a process of its own.

    On a CPU ours trains as ``AccelerateTrainingHook`` and ``KeepFreedMemoryHook`` have it: its modules are accelerated,
    and it keeps freed memory. The authors' does not; both are timed with memory the other way round as well.
    ``tensors_mb`` is the peak of what tensors held. ``grown_mb`` is by how much the process's own peak grew in these
    steps, and ``process_mb`` that peak, with its libraries; they differ by some 5 % from run to run.
    """
    settings: dict[str, Any] = dict(model_name=model_name, batch=batch, side=side, objects=objects)
    with ExitStack() as stack:
        trainers = {
            name: stack.enter_context(process(name, reference, partial(_begin, name, **settings)))
            for name in _names(with_reference=reference is not None)
        }
        timings = time_in_turn({name: partial(ask, trainer, run, 'step') for name, trainer in trainers.items()}, rounds)
        rows = rows_of(timings, NAME, model=model_name, batch=batch, side_px=side, objects=objects)
        for row in rows:
            row |= ask(trainers[row['side']], _memory)
    return rows


def _names(*, with_reference: bool) -> list[str]:
    on_cpu = not torch.cuda.is_available()
    theirs = [NAME, *[NAME + KEPT] * on_cpu, NAME + AUTOCAST]
    return [*theirs * with_reference, OURS, *[OURS + GIVEN_BACK] * on_cpu, OURS + AUTOCAST]


def _begin(name: str, reference: Reference | None, **settings: Any) -> dict[str, Any]:
    """The step of a side, and the process's memory before the first, in 10^6 bytes."""
    if name.endswith(KEPT) or (name.startswith(OURS) and not name.endswith(GIVEN_BACK)):
        keep_freed_memory()
    return dict(step=_step(name, reference, **settings), start=peak_memory_mb())


def _memory() -> dict[str, float]:
    """After some steps, in 10^6 bytes."""
    peak = peak_memory_mb()
    if torch.cuda.is_available():  # where tensors are all that is counted
        return {'tensors_mb': peak}
    model = held['step']()
    of_model = sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    tensors = (of_model + peak_of_tensors(held['step'])) / MB
    return {'tensors_mb': tensors, 'grown_mb': peak - held['start'], 'process_mb': peak}


def _step(
    name: str, reference: Reference | None, *, model_name: str, batch: int, side: int, objects: int
) -> Callable[[], nn.Module]:
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    half, given = name.endswith(AUTOCAST), Batch(batch, side, objects, device)
    model: Any
    if reference is None:
        model = detector(model_name).train().to(device)
        if device.type == 'cpu':
            accelerate_training(model)
        loss = partial(our_loss, model, given)
    else:
        model = reference.model(model_name, None).train().to(device)
        loss = partial(reference.loss, model_name, model, given.images, reference.targets(given.labels, given.boxes))
    return training_step(model, loss, half=half)


def training_step(model: nn.Module, loss: Callable[[], Tensor], *, half: bool) -> Callable[[], nn.Module]:
    """A call that makes gradients anew, ``half``: under bfloat16 autocast, and gives the model."""
    device = next(model.parameters()).device

    def step() -> nn.Module:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            total = loss()
        total.backward()
        return model

    return step


def our_loss(model: Any, given: Batch) -> Tensor:
    """The sum of all losses of a batch."""
    return sum(model(given.images, given.samples(), mode='loss').values())


def peak_of_tensors(call: Callable[[], object]) -> int:
    """The most bytes that tensors made by a call on the CPU held at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    events = recorded.profiler.kineto_results.events()
    sizes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == '[memory]']
    return max(accumulate((size for _, size in sorted(sizes, key=itemgetter(0))), initial=0))

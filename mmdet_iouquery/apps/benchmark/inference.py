"""Prediction: from a batch of images on the device to logits and boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...compat import take_maps_from_heap
from ...deploy import prepare_for_inference
from ...errors import InputError
from ..timing import rows_of, time_in_turn
from .models import Batch, detector
from .reference import NAME, Reference
from .side_processes import AUTOCAST, ask, process, run

FROM_HEAP = ', maps from the heap'
BUILT, PREPARED, HALF, COMPILED = 'as built', 'prepared', 'prepared, bfloat16', ', compiled'
ANY_SIZE = f'{PREPARED}{COMPILED} for any size'


def inference(
    reference: Reference | None,
    *,
    model_names: Sequence[str],
    batches: Sequence[int],
    side: int,
    rounds: int,
    compiled: bool,
) -> list[dict[str, Any]]:
    """Time ours as built, prepared, prepared in bfloat16, and ``compiled``; and the authors' in deploy mode.

    Random weights: every query is decoded whatever its score, so that time depends on no weight. The authors', ours as
    built and ours prepared have a process each. On a CPU the latter takes its maps from the heap
    (:func:`~mmdet_iouquery.compat.take_maps_from_heap`); the authors' are timed in a process that does so as well.

    Raises:
        InputError: ``compiled``, but torch's compiler does not run here.
    """
    if compiled:
        _check_compiler(_device())
    rows = []
    for model_name in model_names:
        for size in batches:
            settings: dict[str, Any] = dict(model_name=model_name, batch=size, side=side, compiled=compiled)
            with ExitStack() as stack:
                sides: dict[str, Callable[[], None]] = {}
                for names in _processes(with_reference=reference is not None, compiled=compiled):
                    own = stack.enter_context(process(names[0], reference, partial(_begin, names, **settings)))
                    sides |= {name: partial(ask, own, run, name) for name in names}
                rows += rows_of(time_in_turn(sides, rounds), NAME, model=model_name, batch=size, side_px=side)
    return rows


def _processes(*, with_reference: bool, compiled: bool) -> list[list[str]]:
    """The sides of each process."""
    theirs = [[NAME, NAME + AUTOCAST], *[[NAME + FROM_HEAP, NAME + FROM_HEAP + AUTOCAST]] * (_device().type == 'cpu')]
    return [
        *theirs * with_reference,
        [BUILT],
        [PREPARED, HALF, *[PREPARED + COMPILED, HALF + COMPILED, ANY_SIZE] * compiled],
    ]


def _begin(
    names: Sequence[str], reference: Reference | None, *, model_name: str, batch: int, side: int, compiled: bool
) -> dict[str, Callable[[], object]]:
    """The calls of a process's sides."""
    if names[0].startswith(NAME + FROM_HEAP):
        take_maps_from_heap()
    device = _device()
    images = Batch(batch, side, 0, device).images
    models: list[Callable[[Tensor], object]]
    if reference is not None:
        model = reference.deployed(model_name, side, device)
        models = [model, _autocast(model, device)]
    else:
        ours = detector(model_name).eval().to(device)
        if BUILT in names:
            models = [_raw(ours)]
        else:
            prepared, half = prepare_for_inference(ours), prepare_for_inference(ours, torch.bfloat16)
            models = [_raw(prepared), _raw(half)]
        if compiled and PREPARED in names:
            models += [torch.compile(model, fullgraph=True, dynamic=False) for model in models]
            # of the same function it would take the graph for one size, where that fits
            models.append(torch.compile(lambda images: _raw(prepared)(images), fullgraph=True, dynamic=True))
            # for an oblong first: sides of a square would be taken for equal ones
            _call(models[-1], images.new_zeros(batch, 3, side, side + 32))()
    return {name: _call(model, images) for name, model in zip(names, models)}


def _device() -> torch.device:
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def _check_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except RuntimeError as error:
        raise InputError(
            f'--compile: {str(error).splitlines()[0]}; torch compiles by a C++ compiler on CPUs (put g++ on the PATH, '
            'or name another in CXX) and by Triton on GPUs; or leave --compile out'
        ) from error


def _raw(model: Any) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda images: model.bbox_head.forward(model.extract_feat(images))


def _autocast(model: Callable[[Tensor], object], device: torch.device) -> Callable[[Tensor], object]:
    def call(images: Tensor) -> object:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return model(images)

    return call


def _call(model: Callable[[Tensor], object], images: Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return model(images)

    return call

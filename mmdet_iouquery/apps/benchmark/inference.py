"""Prediction: from a batch of images on the device to logits and boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...deploy import prepare_for_inference
from ...errors import InputError
from ..timing import rows_of, time_in_turn
from .models import Batch, detector
from .reference import NAME, Reference

ANY_SIZE = 'prepared, compiled for any size'


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

    Random weights: every query is decoded whatever its score, so that time depends on no weight.

    Raises:
        InputError: ``compiled``, but torch's compiler does not run here.
    """
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if compiled:
        _check_compiler(device)
    rows = []
    for model_name in model_names:
        models = _models(model_name, side, reference, device, compiled=compiled)
        for size in batches:
            images = Batch(size, side, 0, device).images
            if compiled:  # for an oblong first: sides of a square would be taken for equal ones
                _call(models[ANY_SIZE], images.new_zeros(size, 3, side, side + 32))()
            sides = {name: _call(model, images) for name, model in models.items()}
            rows += rows_of(time_in_turn(sides, rounds), NAME, model=model_name, batch=size, side_px=side)
    return rows


def _models(
    model_name: str, side: int, reference: Reference | None, device: torch.device, *, compiled: bool
) -> dict[str, Callable[[Tensor], object]]:
    ours = detector(model_name).eval().to(device)
    prepared, half = prepare_for_inference(ours), prepare_for_inference(ours, torch.bfloat16)
    models: dict[str, Callable[[Tensor], object]] = {}
    if reference is not None:
        models[NAME] = reference.deployed(model_name, side, device)
        models[f'{NAME}, bfloat16 autocast'] = _autocast(models[NAME], device)
    models |= {'as built': _raw(ours), 'prepared': _raw(prepared), 'prepared, bfloat16': _raw(half)}
    if compiled:
        torch.compiler.reset()  # there are at most eight graphs of a function
        models['prepared, compiled'] = torch.compile(models['prepared'], fullgraph=True, dynamic=False)
        models['prepared, bfloat16, compiled'] = torch.compile(
            models['prepared, bfloat16'], fullgraph=True, dynamic=False
        )
        # of the same function it would take the graph for one size, where that fits
        models[ANY_SIZE] = torch.compile(lambda images: _raw(prepared)(images), fullgraph=True, dynamic=True)
    return models


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

"""What each way of computing brings to a training step on a CPU, by leaving it out; all sides in one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ...cpu import accelerate_training
from ...cpu.convolution import WinogradConv2d
from ...cpu.norms import FusedConvNormAct, FusedRepVGGBlock
from ...cpu.products import LeanMLP, LeanSwiGLU, ProductAttention, ProductConv2d, ProductLinear
from ...errors import InputError
from ..timing import rows_of, time_in_turn
from .models import Batch, detector
from .reference import NAME, Reference
from .training import OURS, our_loss, training_step

PLAIN = f'{OURS}, plain modules'
WAYS: dict[str, tuple[type[nn.Module], ...]] = {
    'minimal filtering': (WinogradConv2d,),
    'norms with their SiLU': (FusedConvNormAct, FusedRepVGGBlock),
    "oneDNN's products": (ProductLinear, ProductConv2d, ProductAttention, LeanMLP, LeanSwiGLU),
    'activations computed again': (LeanMLP, LeanSwiGLU),
}
"""Of :func:`~mmdet_iouquery.cpu.accelerate_training`, the classes that make each."""


def leave_one_out(
    reference: Reference | None, *, model_name: str, batch: int, side: int, objects: int, half: bool, rounds: int
) -> list[dict[str, Any]]:
    """Time a step as accelerated, without each way, with plain modules and, where given, of the authors' code.

    Ratios are of the accelerated step's time. All sides share the process and its allocator; what a side takes in a
    process of its own, :func:`.training.training` tells.

    Args:
        half: under bfloat16 autocast.

    Raises:
        InputError: there is a GPU, on which nothing is accelerated.
    """
    if torch.cuda.is_available():
        raise InputError('leave-one-out measures ways of computing for CPUs; hide the GPU with CUDA_VISIBLE_DEVICES=')
    given = Batch(batch, side, objects, torch.device('cpu'))
    models = {
        OURS: _model(model_name),
        **{f'{OURS}, without {way}': _model(model_name, *kinds) for way, kinds in WAYS.items()},
    }
    models[PLAIN] = detector(model_name).train()
    steps: dict[str, Callable[[], object]] = {
        name: training_step(model, partial(our_loss, model, given), half=half) for name, model in models.items()
    }
    if reference is not None:
        model = reference.model(model_name, None).train()
        loss = partial(reference.loss, model_name, model, given.images, reference.targets(given.labels, given.boxes))
        steps[NAME] = training_step(model, loss, half=half)
    timings = time_in_turn(steps, rounds)
    return rows_of(timings, OURS, model=model_name, batch=batch, side_px=side, objects=objects, bfloat16=half)


def _model(model_name: str, *left_out: type[nn.Module]) -> nn.Module:
    """Accelerated, but for modules of the classes ``left_out``, which are the plain ones that they are derived from."""
    model = detector(model_name).train()
    accelerate_training(model)
    for module in model.modules():
        if type(module) in left_out:
            module.__class__ = type(module).__mro__[1]
    return model

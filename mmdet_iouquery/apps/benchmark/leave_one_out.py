"""What each way of computing brings to a step or a prediction on a CPU, by leaving it out; all sides in one process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ...cpu import accelerate_training
from ...cpu.convolution import WinogradConv2d
from ...cpu.norms import FusedConvNormAct, FusedRepVGGBlock
from ...cpu.prediction import NeighboursMaxPool2d, PackedConv2d, PackedLinear
from ...cpu.products import (
    LeanMLP,
    LeanSwiGLU,
    ProductAttention,
    ProductConv2d,
    ProductLinear,
    ProductUnbiasedKeys,
)
from ...deploy import prepare_for_inference
from ...errors import InputError
from ...models.layers import DotProductAttention
from ..timing import rows_of, time_in_turn
from .models import Batch, detector
from .reference import NAME, Reference
from .training import OURS, our_loss, training_step

PLAIN = f'{OURS}, plain modules'
WAYS: dict[str, tuple[type[nn.Module], ...]] = {
    'minimal filtering': (WinogradConv2d,),
    'norms with their SiLU': (FusedConvNormAct, FusedRepVGGBlock),
    "oneDNN's products": (
        ProductLinear,
        ProductUnbiasedKeys,
        ProductConv2d,
        ProductAttention,
        LeanMLP,
        LeanSwiGLU,
    ),
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
    _check_cpu()
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


def leave_one_out_of_prediction(*, model_name: str, batch: int, side: int, rounds: int) -> list[dict[str, Any]]:
    """Time a prediction as prepared, without each of :data:`WAYS_OF_PREDICTION`, and without all.

    Raises:
        InputError: there is a GPU, on which nothing is accelerated.
    """
    _check_cpu()
    images, model = Batch(batch, side, 0, torch.device('cpu')).images, detector(model_name).eval()
    models = {OURS: prepare_for_inference(model)}
    for way, undo in WAYS_OF_PREDICTION.items():
        models[f'{OURS}, without {way}'] = undone(models[OURS], undo)
    models[PLAIN] = undone(models[OURS], *WAYS_OF_PREDICTION.values())
    with torch.inference_mode():
        timings = time_in_turn({name: partial(model, images, mode='tensor') for name, model in models.items()}, rounds)
    return rows_of(timings, OURS, model=model_name, batch=batch, side_px=side)


Undo = Callable[[nn.Module], nn.Module]
"""Of a layer for prediction, the plain one that it stands for, or the layer itself."""


def undone(prepared: nn.Module, *ways: Undo) -> nn.Module:
    """A copy of a prepared model with plain layers in the place of some."""
    model = copy.deepcopy(prepared)
    for module in [*model.modules()]:
        for name, child in module.named_children():
            for undo in ways:
                child = undo(child)
            setattr(module, name, child)
    return model


def _unfiltered(layer: nn.Module) -> nn.Module:
    return PackedConv2d(layer) if type(layer) is WinogradConv2d else layer


def _unpacked(layer: nn.Module) -> nn.Module:
    plain: Any
    if isinstance(layer, PackedLinear):
        plain = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], device='meta')
    elif isinstance(layer, PackedConv2d):
        padding, stride, dilation, groups = layer.layout
        out_channels, width, *kernel = layer.weight.shape
        settings: Any = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, device='meta')
        plain = nn.Conv2d(width * groups, out_channels, (kernel[0], kernel[1]), **settings)
        plain.register_forward_hook(lambda *call: layer.activation(call[-1]))
    else:
        return layer
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain


def _without_products(layer: nn.Module) -> nn.Module:
    return DotProductAttention(layer.dropout) if type(layer) is ProductAttention else layer


def _without_maxima(layer: nn.Module) -> nn.Module:
    return nn.MaxPool2d(2, 1) if type(layer) is NeighboursMaxPool2d else layer


WAYS_OF_PREDICTION: dict[str, Undo] = {
    'minimal filtering': _unfiltered,
    'packed layers': _unpacked,
    "attention by oneDNN's products": _without_products,
    'a max pool by maxima': _without_maxima,
}
"""Of :func:`~mmdet_iouquery.prepare_for_inference` on a CPU."""


def _check_cpu() -> None:
    if torch.cuda.is_available():
        raise InputError('leave-one-out measures ways of computing for CPUs; hide the GPU with CUDA_VISIBLE_DEVICES=')

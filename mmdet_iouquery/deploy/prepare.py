"""The same predictions with fewer operations and memory passes."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from mmcv.cnn import fuse_conv_bn
from torch import nn

from ..compat import note_if_slow, take_maps_from_heap
from ..cpu import accelerate_prediction, restore
from ..errors import InputError
from ..models.dense_heads import RTDETRHead
from .merge import merge_parts

HALVES = (torch.float16, torch.bfloat16)


def prepare_for_inference(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of a detector that gives the same predictions faster. The detector itself stays as it is.

    Batch norms, learnable affines and a ViT's LayerScale are fused into the layers before them, RepVGG blocks
    merged into one convolution each, maps that a hybrid encoder enlarges are convolved before, and weights laid out
    channels last where that is the faster layout (on CPUs, and in half precision). On CPUs, wide 3x3 convolutions
    in single precision are computed by fewer multiplications (:mod:`mmdet_iouquery.cpu.winograd`), for which the
    copy takes five times the memory of their weights; other convolutions, and linear layers, have their weights
    packed once (:mod:`mmdet_iouquery.cpu.prediction`), and attention of many tokens is computed otherwise than by
    torch's fused form (:mod:`mmdet_iouquery.cpu.products`). Tables of anchors and positions need no preparing: models
    of this package have them always. The process then keeps up to 64 MB of freed memory, see
    :func:`~mmdet_iouquery.compat.take_maps_from_heap`.

    Predictions equal those of ``model.eval()`` up to rounding: logits and boxes to 1e-4 in single precision. The copy
    is for prediction alone: it cannot be trained, and its weights are no checkpoint of ``model``.

    Args:
        model: any detector of mmdet's.
        dtype: ``torch.bfloat16`` or ``torch.float16`` for prediction in half precision, of detectors with an
            ``RTDETRHead``, which keep what needs it in single precision; None: that of the weights.

    Raises:
        InputError: another ``dtype``, or half precision for a detector of another kind.
    """
    if dtype is not None:
        _check_dtype(model, dtype)
    prepared = merged(model)
    if dtype is not None:
        cast(prepared, dtype)
    parameter = next(prepared.parameters())
    if slow := note_if_slow(parameter.dtype, parameter.device):
        warnings.warn(f'{slow}; predict in float32, or on a GPU', stacklevel=2)
    if parameter.device.type == 'cpu' or parameter.dtype in HALVES:
        prepared.to(memory_format=torch.channels_last)
    if parameter.device.type == 'cpu':
        accelerate_prediction(prepared)
        take_maps_from_heap()
    return prepared


def merged(model: nn.Module) -> Any:
    """A copy in evaluation mode whose norms, affines and RepVGG blocks are part of the convolutions beside them."""
    copied = copy.deepcopy(model).eval()
    restore(copied)
    copied = fuse_conv_bn(copied).requires_grad_(False)
    return merge_parts(copied)


def _check_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    if dtype not in (torch.float32, *HALVES):
        raise InputError(f'dtype must be torch.bfloat16, torch.float16, torch.float32 or None, got {dtype!r}')
    head = getattr(model, 'bbox_head', None)
    if dtype in HALVES and not isinstance(head, RTDETRHead):
        raise InputError(
            f'half precision ({dtype}) is for detectors with an RTDETRHead; this {type(model).__name__} has '
            f'{type(head).__name__}; leave dtype out, and predict under torch.autocast'
        )


def cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast all but the data preprocessor, whose means are of pixels 0..255."""
    for name, child in model.named_children():
        if name != 'data_preprocessor':
            child.to(dtype)

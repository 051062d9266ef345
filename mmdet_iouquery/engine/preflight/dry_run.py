"""The largest step of a training, before it starts: does it fit into memory?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.structures import SampleList
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...errors import InputError
from ...models.data_preprocessors import BatchMultiScale


class DryRun(NamedTuple):
    """What the largest step was, and took."""

    input_shape: tuple[int, ...]
    """(B, 3, H, W)."""
    boxes: int
    """In each image."""
    loss: float
    peak_mb: float
    """Of the device's memory, or, on the CPU, of the process in all, in 1e6 bytes."""

    def __str__(self) -> str:
        batch, _, height, width = self.input_shape
        return (
            f'dry run: a step with {batch} images of {height} x {width} and {self.boxes} boxes each went through '
            f'(loss {self.loss:.2f}); at its peak it took {self.peak_mb:.0f} MB'
        )


def dry_run(runner: Runner, boxes: int = 100) -> DryRun:
    """Run forward pass, losses and backward pass of one batch of the training set as large as it can come.

    Images are brought to the largest side of ``BatchMultiScale``, where the model has one, and each is given random
    boxes. There is no optimizer step; the weights stay as they are.

    Args:
        boxes: boxes in each image, at least 1.

    Raises:
        InputError: the runner builds its model when it starts, as mmengine's ``FlexibleRunner`` does.
    """
    if not isinstance(runner.model, nn.Module):
        raise InputError(
            f'--dry-run cannot tell what a step takes with {type(runner).__name__}, whose strategy prepares the model '
            'when training starts; leave runner_type and strategy out for it'
        )
    model: Any = getattr(runner.model, 'module', runner.model)
    optim_wrapper = runner.build_optim_wrapper(runner.cfg.optim_wrapper)
    batch = next(iter(runner.train_dataloader))
    batch = model.data_preprocessor(batch, training=True)
    inputs, samples = _at_its_largest(model, batch['inputs'], batch['data_samples'])
    for sample in samples:
        sample.gt_instances = _crowd(boxes, sample.img_shape, inputs.device)
    on_cuda = inputs.is_cuda
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(inputs.device)
    model.train()
    with optim_wrapper.optim_context(model):
        losses = model(inputs, samples, mode='loss')
    loss = model.parse_losses(losses)[0]
    loss.backward()
    model.zero_grad(set_to_none=True)
    peak = torch.cuda.max_memory_allocated(inputs.device) if on_cuda else _peak_of_process()
    return DryRun(tuple(inputs.shape), boxes, float(loss.detach()), peak / 1e6)


def _at_its_largest(model: nn.Module, inputs: Tensor, samples: SampleList) -> tuple[Tensor, SampleList]:
    for augment in getattr(model.data_preprocessor, 'batch_augments', None) or ():
        if isinstance(augment, BatchMultiScale):
            inputs, samples = BatchMultiScale([max(augment.sizes)], mode=augment.mode)(inputs, samples)
    return inputs, samples


def _crowd(count: int, shape: Sequence[int], device: torch.device) -> InstanceData:
    """Random boxes of the first class, at least a tenth of the image wide and high."""
    low, size = 0.7 * torch.rand(count, 2), 0.1 + 0.2 * torch.rand(count, 2)
    boxes_xyxy = torch.cat([low, low + size], dim=1) * torch.tensor([shape[1], shape[0]] * 2)
    return InstanceData(bboxes=boxes_xyxy.to(device), labels=torch.zeros(count, dtype=torch.long, device=device))


def _peak_of_process() -> float:
    """The most memory that this process has held, in bytes; NaN on Windows, which does not say."""
    try:
        import resource
    except ImportError:
        return float('nan')
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024

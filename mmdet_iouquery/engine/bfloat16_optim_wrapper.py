"""Training under bfloat16 autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from ..cpu import warn_if_slow


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """mmengine's ``OptimWrapper`` whose forward pass runs under ``torch.autocast`` with bfloat16, on any device.

    bfloat16 has single precision's range, so neither losses nor gradients are scaled. mmengine's ``AmpOptimWrapper``
    always scales them, and refuses a machine without accelerator.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and what the parent does about gradient accumulation."""
        device = next(model.parameters()).device
        warn_if_slow(torch.bfloat16, device, 'train in float32 (no --amp), or on a GPU')
        with super().optim_context(model), torch.autocast(device_type=device.type, dtype=torch.bfloat16):
            yield

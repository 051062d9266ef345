"""Training under bfloat16 autocast."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from ..compat import note_if_slow


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """mmengine's ``OptimWrapper`` whose forward pass runs under ``torch.autocast`` with bfloat16, on any device.

    bfloat16 has single precision's range, so neither losses nor gradients are scaled. mmengine's ``AmpOptimWrapper``
    always scales them, and refuses a machine without accelerator.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if slow := note_if_slow(torch.bfloat16, self.optimizer.param_groups[0]['params'][0].device):
            print_log(f'{slow}; train in float32 (no --amp), or on a GPU', logger='current', level=logging.WARNING)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast, and what the parent does about gradient accumulation."""
        device = next(model.parameters()).device
        with super().optim_context(model), torch.autocast(device_type=device.type, dtype=torch.bfloat16):
            yield

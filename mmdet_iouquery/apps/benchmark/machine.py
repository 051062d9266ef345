"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from functools import partial
from typing import Any

import torch

from ..timing import time_in_turn

_SIDES = (256, 512, 1024, 2048)  # of square matrices
_LONG_ENOUGH = 0.02  # seconds
_BYTES = 2**28


def machine() -> dict[str, Any]:
    """Processor, threads and torch, and the rates that bound everything: matrix products and copies."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    return {
        'device': torch.cuda.get_device_name() if device.type == 'cuda' else _processor(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'python': platform.python_version(),
        'gflops_float32': _matrix_rate(device, torch.float32),
        'gflops_bfloat16': _matrix_rate(device, torch.bfloat16),
        'copy_gbytes_per_s': _copy_rate(device),
    }


def _processor() -> str:
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            names = [line.split(':', 1)[1].strip() for line in file if line.startswith('model name')]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Of the first product that takes 20 ms, as bfloat16 without instructions for it is hundreds of times as slow."""
    for side in _SIDES:
        a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
        seconds = time_in_turn({'product': partial(torch.matmul, a, b)}, 5)['product'].median
        if seconds > _LONG_ENOUGH:
            break
    return round(2 * side**3 / seconds / 1e9, 1)


def _copy_rate(device: torch.device) -> float:
    """Of bytes read and written."""
    a, b = (torch.zeros(_BYTES // 4, device=device) for _ in range(2))
    seconds = time_in_turn({'copy': lambda: b.copy_(a)}, 5)['copy'].median
    return round(2 * _BYTES / seconds / 1e9, 1)

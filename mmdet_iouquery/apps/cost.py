"""What a model costs: parameters, floating-point operations, memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

MB = 1e6


def count_parameters(model: nn.Module) -> int:
    """All parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(forward: Callable[[], object]) -> int:
    """Floating-point operations of a call, a multiplication and an addition counted as two.

    Counted are convolutions and matrix products, those of attention included, and nothing else: no sampling, no
    normalisation, no activation. PyTorch's fused attention is taken apart for this one call, as the counter sees into
    it on some devices only.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False)
    try:
        # with gradients, as the counter asks every tensor that wants one for its function, learned queries too
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            forward()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.get_total_flops()


def peak_memory_mb() -> float:
    """Peak memory since the start, in 10^6 bytes.

    On a GPU that of the tensors since the statistics were last reset; on a CPU the resident memory of the process,
    libraries included.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MB
    status = Path('/proc/self/status')
    if status.is_file():
        # not getrusage: on Linux a new process inherits that peak from the one that started it
        peak = next(
            (line for line in status.read_text(encoding='ascii').splitlines() if line.startswith('VmHWM:')), None
        )
        if peak is not None:
            return int(peak.split()[1]) * 1024 / MB
    import resource

    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


def device_name() -> str:
    """The GPU's name, or the number of threads on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'{torch.get_num_threads()} threads on CPU'

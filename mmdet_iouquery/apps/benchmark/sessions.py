"""Runtimes of exported files, of ours and of others alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

Feed = Mapping[str, NDArray[Any]]


def session(file: str, precision: str | None, threads: int) -> Callable[[Feed], Any]:
    """A call of a file.

    Args:
        file: ``.onnx`` or ``.xml``.
        precision: OpenVINO's, 'f32' or 'bf16'; None: onnxruntime.
        threads: that one call uses.
    """
    if precision is None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        opened = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
        return lambda feed: opened.run(None, dict(feed))
    hints = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': precision, 'INFERENCE_NUM_THREADS': threads}
    request = _openvino_core().compile_model(file, 'CPU', hints).create_infer_request()
    return lambda feed: request.infer(dict(feed))


@lru_cache(maxsize=1)
def _openvino_core() -> Any:
    """One for all, as ``iouquery_runtime.backends.openvino_core`` says; this file runs without any package."""
    import openvino

    return openvino.Core()


def resident_mb() -> float:
    """Memory of this process that lies in RAM, in MB of 10**6 bytes; 0 where the system does not tell."""
    try:
        with open('/proc/self/statm', encoding='ascii') as file:
            return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6
    except OSError:
        return 0.0

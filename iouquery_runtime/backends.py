"""onnxruntime and OpenVINO behind one call; each is imported when a file needs it."""

from __future__ import annotations

import importlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .errors import InputError, optional, reason
from .metadata import Metadata

_GPU, _CPU = 'CUDAExecutionProvider', 'CPUExecutionProvider'


class Backend(ABC):
    """A graph that can be run, by any number of threads at the same time."""

    metadata: Metadata
    batch_size: int | None
    """Images that the graph takes at once, no more and no fewer; None: any number."""

    @abstractmethod
    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name."""


class OnnxBackend(Backend):
    """An ``.onnx`` file in onnxruntime.

    Args:
        path: of the file.
        threads: that one call uses, no more than there are cores; None: as many.
        providers: onnxruntime's execution providers in order of preference; None: CUDA where it is there, and the CPU.

    Raises:
        InputError: onnxruntime or a provider is missing; the file is no ONNX file, or of another maker.
    """

    def __init__(self, path: Path, threads: int | None, providers: Sequence[Any] | None) -> None:
        onnxruntime = optional('onnxruntime', f'running {path}', 'onnxruntime (or onnxruntime-gpu)')
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        if threads is not None:
            options.intra_op_num_threads = min(threads, num_cores())
        chosen = _providers(onnxruntime, providers)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=chosen)
        except Exception as error:  # its own exceptions have no base but this
            raise InputError(
                f'{path} is not an ONNX file that onnxruntime {onnxruntime.__version__} can run: '
                f'{reason(error).rpartition("failed:")[2]}; export it again with `iouquery export`'
            ) from error
        self.metadata = Metadata.read(self._session.get_modelmeta().custom_metadata_map, str(path))
        inputs = {tensor.name: tensor.shape for tensor in self._session.get_inputs()}
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]
        _check_graph(path, self.metadata, inputs, self._outputs)
        batch_size = inputs['images'][0]
        self.batch_size = batch_size if isinstance(batch_size, int) else None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs))))


class OpenVinoBackend(Backend):
    """An ``.xml`` file, with its ``.bin``, in OpenVINO.

    Args:
        path: of the ``.xml`` file.
        threads: that one call uses, no more than there are cores; None: as many.
        devices: OpenVINO's devices in order of preference, such as ``['GPU', 'CPU']``; None: the CPU.
        precision: 'bfloat16' as a hint, or None: as the graph says; by itself OpenVINO takes bfloat16 on CPUs that have
            instructions for it.

    Raises:
        InputError: OpenVINO or a device is missing; the file is none of OpenVINO's, or of another maker.
    """

    def __init__(self, path: Path, threads: int | None, devices: Sequence[str] | None, precision: str | None) -> None:
        openvino = optional('openvino', f'running {path}', 'openvino')
        weights = path.with_suffix('.bin')
        if not weights.is_file():
            raise InputError(f'{path} has its weights in {weights.name}, which is not beside it; copy both files')
        core = openvino_core()
        try:
            model = core.read_model(path)
        except Exception as error:
            raise InputError(
                f'{path} is not a model that OpenVINO {openvino.__version__.split("-")[0]} can read: {reason(error)}; '
                'export it again with `iouquery export`'
            ) from error
        self.metadata = Metadata.read(_rt_info(model), str(path))
        inputs = {port.get_any_name(): port.get_partial_shape() for port in model.inputs}
        self._outputs = [port.get_any_name() for port in model.outputs]
        _check_graph(path, self.metadata, inputs, self._outputs)
        batch_size = inputs['images'][0]
        self.batch_size = batch_size.get_length() if batch_size.is_static else None
        hints: dict[str, Any] = {'PERFORMANCE_HINT': 'LATENCY'}
        hints['INFERENCE_PRECISION_HINT'] = 'bf16' if precision == 'bfloat16' else 'f32'
        if threads is not None:
            hints['INFERENCE_NUM_THREADS'] = threads  # it takes no more than there are cores by itself
        device = _device(core, devices)
        self._compiled = core.compile_model(model, device, hints if device == 'CPU' else {})
        self._requests = threading.local()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if not hasattr(self._requests, 'own'):  # a request serves one thread at a time
            self._requests.own = self._compiled.create_infer_request()
        results = self._requests.own.infer(dict(inputs))
        return {name: results[name] for name in self._outputs}


@lru_cache(maxsize=1)
def openvino_core() -> Any:
    """OpenVINO's core, the one of this process, which is kept.

    The CPU plugin of each core gives its thread a stack for signal handlers, and in the end puts back the one that was
    there before, though that may be of a core that is gone: the next signal then ends the process. Seen with OpenVINO
    2026.4, of two cores that end in the order in which they began.
    """
    core = importlib.import_module('openvino').Core()
    core.get_property('CPU', 'FULL_DEVICE_NAME')  # loads the plugin
    return core


def check_file(path: Path) -> None:
    """Whether there is a file of a kind that can be opened.

    Raises:
        InputError: there is none.
    """
    if path.suffix.lower() not in ('.onnx', '.xml'):
        raise InputError(f'{path} is neither .onnx nor .xml (OpenVINO); export a checkpoint with `iouquery export`')
    if not path.is_file():
        raise InputError(f'there is no file {path}; name an .onnx or .xml file that `iouquery export` wrote')


def open_file(path: Path, threads: int | None, providers: Sequence[Any] | None, precision: str | None) -> Backend:
    """The back end for a file, by its suffix.

    Raises:
        InputError: no such file, or another suffix; a precision that it cannot have; and what the back ends raise.
    """
    check_file(path)
    if precision not in (None, 'bfloat16'):
        raise InputError(f"precision must be 'bfloat16' or None, got {precision!r}")
    if path.suffix.lower() == '.xml':
        return OpenVinoBackend(path, threads, providers, precision)
    if precision is not None:
        raise InputError(
            f'{path} is run in the precision that it was exported in; bfloat16 is for OpenVINO files: leave precision '
            'out'
        )
    return OnnxBackend(path, threads, providers)


def num_cores() -> int:
    """Of those of the CPU, as many as this process may use; with more threads each waits for the others."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _providers(onnxruntime: Any, asked: Sequence[Any] | None) -> Sequence[Any]:
    available = onnxruntime.get_available_providers()
    if asked is None:
        return [name for name in (_GPU, _CPU) if name in available]
    for provider in asked:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            raise InputError(
                f'this onnxruntime {onnxruntime.__version__} has no provider {name!r}, only {", ".join(available)}; '
                'for CUDA: pip install onnxruntime-gpu'
            )
    return asked


def _device(core: Any, asked: Sequence[str] | None) -> str:
    if not asked:
        return 'CPU'
    for name in asked:
        if name.split('.')[0] not in {device.split('.')[0] for device in core.available_devices}:
            raise InputError(
                f'OpenVINO finds no device {name!r} here, only {", ".join(core.available_devices)}; name one of these'
            )
    return asked[0] if len(asked) == 1 else f'AUTO:{",".join(asked)}'


def _rt_info(model: Any) -> dict[str, str]:
    """The metadata of an OpenVINO model; none where another program has written it."""
    values = model.rt_info['iouquery'] if model.has_rt_info(['iouquery']) else {}
    values = values if isinstance(values, Mapping) else values.astype(dict)
    return {name: value if isinstance(value, str) else value.astype(str) for name, value in values.items()}


def _check_graph(path: Path, metadata: Metadata, inputs: Mapping[str, Any], outputs: Sequence[str]) -> None:
    raw = metadata.output == 'raw'
    expected = {'images'} if raw else {'images', 'sizes'}, {'logits', 'boxes'} if raw else {'boxes', 'scores', 'labels'}
    if (set(inputs), set(outputs)) != expected:
        raise InputError(
            f'{path} has inputs {sorted(inputs)} and outputs {sorted(outputs)}, but for its metadata they would be '
            f'{sorted(expected[0])} and {sorted(expected[1])}; export it again with `iouquery export`'
        )

"""What is computed inside an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from ..errors import ParityError


class InnerTensors:
    """Runs a file in onnxruntime, on the CPU, and gives tensors of it.

    Args:
        proto: stays as it is.
        names: of tensors, outputs or not.

    Raises:
        ParityError: it is no graph that can be run.
    """

    def __init__(self, proto: ModelProto, names: Sequence[str]) -> None:
        watched = ModelProto.FromString(proto.SerializeToString())
        self.names = [*dict.fromkeys(names)]
        del watched.graph.output[:]
        watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(
                watched.SerializeToString(), options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # onnxruntime's own, which have no other class in common
            raise ParityError(
                f'onnxruntime does not open what the exporter wrote: {error}; try the other --exporter, or another '
                '--opset'
            ) from error

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """By name.

        Raises:
            ParityError: it does not run on these inputs.
        """
        try:
            given = self.session.run(None, dict(inputs))
        except Exception as error:
            shapes = ', '.join(f'{name} {list(value.shape)}' for name, value in inputs.items())
            raise ParityError(
                f'the exported file does not run on {shapes}: {error}; try the other --exporter, another --opset or '
                'one fixed size'
            ) from error
        return dict(zip(self.names, map(np.asarray, given)))

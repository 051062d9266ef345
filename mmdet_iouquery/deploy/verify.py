"""Does an exported file compute what the model computes?

Neighbouring scores of queries differ by less than what runtimes round, so that to compare outputs slot by slot tells
nothing. Here the scores that a choice is made by are compared before it; then the model is held to the file's choice,
which has to be one of the best within what is rounded, and all that follows can be compared slot by slot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto, TensorProto
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import RunError
from .graph import Deployed, example

SCORE_TOLERANCE = 1e-4
"""Of what a choice is made by: the encoder's logits of all tokens, probabilities of all queries."""
LOGIT_TOLERANCE = 1e-3
BOX_TOLERANCE = 1e-4
"""Normalised."""
SHARE = 0.99
"""Of the queries that must agree."""
BATCHES = (1, 2, 3)


class ParityError(RunError):
    """An exported file computes something else than the model."""

    status = 6


@dataclass(frozen=True)
class Parity:
    """How far a file is from the model, of one batch of images."""

    batch: int
    size: tuple[int, int]
    token_scores: float | None
    """Largest difference of the scores (B, N) that queries are chosen by; None: they are not chosen."""
    exchanged: int
    """Queries that the model would not have chosen, but whose score is as good within :data:`SCORE_TOLERANCE`."""
    logits: float
    """Largest difference of the logits (B, Q, C)."""
    boxes: float
    """Largest difference of the normalised boxes (B, Q, 4)."""
    share: float
    """Of the queries that agree within the tolerances."""
    detections: float | None
    """Largest difference of boxes, in widths and heights of the image, and scores; None: a file without."""

    @property
    def holds(self) -> bool:
        """Whether the file is as good as the model."""
        chosen = self.token_scores is None or self.token_scores <= SCORE_TOLERANCE
        detected = self.detections is None or self.detections <= BOX_TOLERANCE
        return chosen and self.share >= SHARE and detected

    def __str__(self) -> str:
        of_tokens = '' if self.token_scores is None else f"tokens' scores {self.token_scores:.1e}, "
        of_detections = '' if self.detections is None else f', detections {self.detections:.1e}'
        return (
            f'{self.batch} x {self.size[0]}x{self.size[1]}: {of_tokens}logits {self.logits:.1e}, boxes {self.boxes:.1e}'
            f'{of_detections}; {self.share:.1%} of the queries agree, {self.exchanged} exchanged'
        )


def verify(model: nn.Module, path: str | Path) -> tuple[Parity, ...]:
    """Compare a file with the model it was exported from, in onnxruntime on the CPU, on images of noise.

    Of a file for any number of images, batches of 1, 2 and 3; of one for any size, another size as well.

    Raises:
        ParityError: they differ.
    """
    proto = onnx.load(str(path))
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    inside = _Inside(proto)
    eager = Deployed(model, input=properties['input'], raw=properties['output'] == 'raw')
    found = []
    for batch, size in _batches(proto, properties):
        parity = _compare(eager, inside, batch, size, properties)
        if not parity.holds:
            raise ParityError(f'the exported file does not compute what the model does: {parity}')
        found.append(parity)
    return tuple(found)


def _batches(proto: ModelProto, properties: dict[str, str]) -> list[tuple[int, tuple[int, int]]]:
    fixed = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    size = tuple(json.loads(properties['imgsz'] or 'null') or json.loads(properties['default_imgsz']))
    batches = [(batch, size) for batch in ((fixed,) if fixed else BATCHES)]
    if json.loads(properties['imgsz']) is None:
        batches += [(batches[-1][0], (size[0], size[1] + 64)), (batches[0][0], (size[0] + 32, size[1]))]
    return batches


class _Inside:
    """A file that also gives what lies inside it."""

    def __init__(self, proto: ModelProto) -> None:
        proto = onnx.ModelProto.FromString(proto.SerializeToString())
        self.choices = [node for node in proto.graph.node if node.op_type == 'TopK']
        self.outputs = [value.name for value in proto.graph.output]
        names = {'query_logits', 'query_boxes'} - {*self.outputs} if 'scores' in self.outputs else set()
        for node in self.choices:
            names |= {node.input[0], node.output[1]}
        for name in sorted(names):
            kind = TensorProto.INT64 if any(name == node.output[1] for node in self.choices) else TensorProto.FLOAT
            proto.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=['CPUExecutionProvider']
        )

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        names = [value.name for value in self.session.get_inputs()]
        feed = {name: value.numpy() for name, value in zip(names, inputs)}
        given = self.session.run(None, feed)
        return {value.name: torch.from_numpy(np.asarray(x)) for value, x in zip(self.session.get_outputs(), given)}


class _HeldTo(TorchFunctionMode):
    """Has the first ``topk`` inside give what a file has chosen, and keeps what it was given."""

    def __init__(self, index: Tensor | None) -> None:
        self.index = index
        self.scores: Tensor | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function not in (torch.topk, Tensor.topk) or self.scores is not None or self.index is None:
            return function(*args, **(kwargs or {}))
        self.scores = args[0]
        return torch.return_types.topk((self.scores.gather(-1, self.index), self.index))


@torch.no_grad()
def _compare(eager: Deployed, inside: _Inside, batch: int, size: tuple[int, int], properties: dict[str, str]) -> Parity:
    raw = properties['output'] == 'raw'
    inputs = example(batch, size, properties['input'], raw, seed=batch)
    given = inside(inputs)
    logits, boxes = (given.get(f'query_{name}', given.get(name)) for name in ('logits', 'boxes'))
    assert logits is not None and boxes is not None
    choices = inside.choices if raw else inside.choices[:-1]
    first = choices[0] if choices else None
    with _HeldTo(None if first is None else given[first.output[1]]) as held:
        expected = eager.detector(eager.normalise(inputs[0]))
    apart_logits, apart_boxes = (logits - expected.logits).abs(), (boxes - expected.boxes).abs()
    agree = (apart_logits.amax(-1) <= LOGIT_TOLERANCE) & (apart_boxes.amax(-1) <= BOX_TOLERANCE)
    token_scores, exchanged = None, 0
    if held.scores is not None and first is not None:
        token_scores, exchanged = _choice(held.scores, given[first.input[0]], given[first.output[1]])
    detections = None
    if eager.postprocess is not None:
        detections = _detections(eager.postprocess, inside, given, logits, boxes, inputs[1])
    return Parity(
        batch,
        size,
        token_scores,
        exchanged,
        apart_logits.max().item(),
        apart_boxes.max().item(),
        agree.float().mean().item(),
        detections,
    )


def _choice(expected: Tensor, scores: Tensor, index: Tensor) -> tuple[float, int]:
    """How far scores are from those expected, or chosen ones from the best; and how many others are chosen."""
    best = expected.topk(index.shape[-1], dim=-1)
    apart = (scores - expected).abs().max()
    worse = (expected.gather(-1, index) - best.values).abs().max() / 2  # either of two may be off
    others = (index.sort(-1).values != best.indices.sort(-1).values) if index.dim() == 2 else torch.zeros(1)
    return max(apart.item(), worse.item()), int(others.sum())


def _detections(
    postprocess: nn.Module, inside: _Inside, given: dict[str, Tensor], logits: Tensor, boxes: Tensor, sizes: Tensor
) -> float:
    """How far detections are from those of the same queries."""
    last = inside.choices[-1]
    with _HeldTo(given[last.output[1]]) as held:
        expected_boxes, expected_scores, expected_labels = postprocess(logits, boxes, sizes)
    assert held.scores is not None
    if not torch.equal(expected_labels, given['labels']):
        return float('inf')
    limit = torch.cat([sizes, sizes], dim=1).unsqueeze(1)
    apart = [
        _choice(held.scores, given[last.input[0]], given[last.output[1]])[0],
        ((expected_boxes - given['boxes']) / limit).abs().max().item(),
        (expected_scores - given['scores']).abs().max().item(),
    ]
    return max(apart)

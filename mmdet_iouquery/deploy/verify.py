"""Does an exported file compute what the model computes?

Neighbouring scores of queries differ by less than what runtimes round, so that to compare outputs slot by slot tells
nothing. Here the scores that a choice is made by are compared before it; then the model is held to the file's choice,
which has to be one of the best within what is rounded, and all that follows can be compared slot by slot. So with each
choice, where a selector makes several.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from iouquery_runtime.metadata import num_tokens

from ..core import as_float
from ..errors import ParityError
from .graph import STRIDE, Deployed, example
from .inner_tensors import InnerTensors


class Tolerance(NamedTuple):
    """Largest differences."""

    scores: float
    """Of what queries are chosen by: the encoder's logits of all tokens."""
    logits: float
    boxes: float
    """Normalised."""


TOLERANCES = {'float32': Tolerance(1e-4, 1e-3, 1e-4), 'float16': Tolerance(5e-2, 5e-2, 5e-3)}
"""By the precision of a file. float16 has 11 bits: of a logit of 10 that is 5e-3, after fifty layers ten times that."""
DETECTION_TOLERANCE = 1e-4
"""Of boxes, in widths and heights of the image, and scores, of the same queries: always in single precision."""
SHARE = 0.99
"""Of the queries that must agree."""
BATCHES = (1, 2, 3)


@dataclass(frozen=True)
class Parity:
    """How far a file is from the model, of one batch of images."""

    batch: int
    size: tuple[int, int]
    token_scores: float | None
    """Largest difference of the scores (B, N) that queries are chosen by; None: they are not chosen."""
    exchanged: int
    """Queries that the model would not have chosen, but whose score is as good within the tolerance."""
    logits: float
    """Largest difference of the logits (B, Q, C)."""
    boxes: float
    """Largest difference of the normalised boxes (B, Q, 4)."""
    share: float
    """Of the queries that agree within the tolerances."""
    detections: float | None
    """Largest difference of boxes, in widths and heights of the image, and scores; None: a file without."""
    tolerance: Tolerance = TOLERANCES['float32']

    @property
    def holds(self) -> bool:
        """Whether the file is as good as the model."""
        chosen = self.token_scores is None or self.token_scores <= self.tolerance.scores
        detected = self.detections is None or self.detections <= DETECTION_TOLERANCE
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

    Of a file for any number of images, batches of 1, 2 and 3; of one for any size, larger and smaller ones as well.

    Raises:
        ParityError: they differ.
    """
    proto = onnx.load(str(path))
    file = _File(proto)
    eager = Deployed(model, input=file.properties['input'], raw=file.raw, merge=False)
    parities = []
    for batch, size in _batches(proto, file.properties):
        parity = _compare(eager, file, batch, size)
        if not parity.holds:
            raise ParityError(
                f'the exported file does not compute what the model computes: {parity}; try the other --exporter, '
                'another --opset or, of a file in float16, float32'
            )
        parities.append(parity)
    return tuple(parities)


def _batches(proto: ModelProto, properties: dict[str, str]) -> list[tuple[int, tuple[int, int]]]:
    fixed = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    size = tuple(json.loads(properties['imgsz'] or 'null') or json.loads(properties['default_imgsz']))
    batches = [(batch, size) for batch in ((fixed,) if fixed else BATCHES)]
    if json.loads(properties['imgsz']) is None:
        batches += [(batches[-1][0], (size[0], size[1] + 64)), (batches[0][0], (size[0] + STRIDE, size[1]))]
        smaller = _smaller(size, json.loads(properties['strides']), json.loads(properties['min_tokens']))
        batches += [(batches[0][0], smaller)] if smaller != size else []
    return batches


def _smaller(size: tuple[int, int], strides: Sequence[int], min_tokens: int) -> tuple[int, int]:
    """About half of a size; more where that has too few tokens, the size itself at most."""
    height, width = (max(STRIDE, side // 2 // STRIDE * STRIDE) for side in size)
    while num_tokens((height, width), strides) < min_tokens:
        height, width = min(size[0], height + STRIDE), min(size[1], width + STRIDE)
    return height, width


class _File:
    """A file as it is compared: outputs, choices, and what both are made of."""

    def __init__(self, proto: ModelProto) -> None:
        self.properties = {entry.key: entry.value for entry in proto.metadata_props}
        self.raw = self.properties['output'] == 'raw'
        self.logits, self.boxes = ('logits', 'boxes') if self.raw else ('query_logits', 'query_boxes')
        outputs = [value.name for value in proto.graph.output]
        # those of a row an image choose tokens, and the last one detections, where there are such
        self.choices = [(node.input[0], node.output[1]) for node in proto.graph.node if node.op_type == 'TopK']
        names = [*outputs, self.logits, self.boxes, *(name for pair in self.choices for name in pair)]
        self._inputs = [value.name for value in proto.graph.input]
        self._inner = InnerTensors(proto, names)

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        given = self._inner({name: value.numpy() for name, value in zip(self._inputs, inputs)})
        return {name: as_float(torch.from_numpy(value)) for name, value in given.items()}


class _HeldTo(TorchFunctionMode):
    """Has every ``topk`` inside that a file makes too give what the file has chosen.

    Args:
        choices: of the file, in its order: the scores (B, N) and what was chosen of them (B, K).
    """

    def __init__(self, choices: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.left = [*choices]
        self.made: list[tuple[float, int]] = []
        """What :func:`_choice` says of each."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = function(*args, **(kwargs or {}))
        if function not in (torch.topk, Tensor.topk):
            return own
        expected: Tensor = args[0]
        for number, (scores, index) in enumerate(self.left):
            if scores.shape == expected.shape and index.shape == own.indices.shape:
                del self.left[number]
                self.made.append(_choice(as_float(expected), scores, index))
                return torch.return_types.topk((expected.gather(-1, index), index))
        return own


@torch.no_grad()
def _compare(eager: Deployed, file: _File, batch: int, size: tuple[int, int]) -> Parity:
    inputs = example(batch, size, file.properties['input'], file.raw, seed=batch)
    given = file(inputs)
    choices = [(given[scores], given[index]) for scores, index in (file.choices if file.raw else file.choices[:-1])]
    with _HeldTo([choice for choice in choices if choice[1].dim() == 2]) as held:
        expected = eager.detector(eager.normalise(inputs[0]))
    logits, boxes = given[file.logits], given[file.boxes]
    apart_logits, apart_boxes = (logits - expected.logits).abs(), (boxes - expected.boxes).abs()
    tolerance = TOLERANCES[file.properties['precision']]
    agree = (apart_logits.amax(-1) <= tolerance.logits) & (apart_boxes.amax(-1) <= tolerance.boxes)
    return Parity(
        batch,
        size,
        max((apart for apart, _ in held.made), default=None),
        sum(exchanged for _, exchanged in held.made),
        apart_logits.max().item(),
        apart_boxes.max().item(),
        agree.float().mean().item(),
        None if eager.postprocess is None else _detections(eager.postprocess, file, given, inputs[1]),
        tolerance,
    )


def _choice(expected: Tensor, scores: Tensor, index: Tensor) -> tuple[float, int]:
    """How far scores are from those expected, or chosen ones from the best; and how many others are chosen."""
    best = expected.topk(index.shape[-1], dim=-1)
    apart = (scores - expected).abs().max()
    worse = (expected.gather(-1, index) - best.values).abs().max() / 2  # either of two may be off
    others = ~(index.unsqueeze(-1) == best.indices.unsqueeze(-2)).any(-1)
    return max(apart.item(), worse.item()), int(others.sum())


def _detections(postprocess: nn.Module, file: _File, given: dict[str, Tensor], sizes: Tensor) -> float:
    """How far detections are from those of the same queries."""
    scores, index = (given[name] for name in file.choices[-1])
    with _HeldTo([(scores, index)]) as held:
        expected_boxes, expected_scores, expected_labels = postprocess(given[file.logits], given[file.boxes], sizes)
    if not held.made or not torch.equal(expected_labels, given['labels']):
        return float('inf')
    limit = torch.cat([sizes, sizes], dim=1).unsqueeze(1)
    apart = [
        held.made[0][0],
        ((expected_boxes - given['boxes']) / limit).abs().max().item(),
        (expected_scores - given['scores']).abs().max().item(),
    ]
    return max(apart)

"""What one run of a comparison found, and the JSON file that says that the run is finished.

AP is COCO's, in [0, 1]; None stands for a figure that doesn't exist, such as AP_s of a set without small objects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...file_io import write_json

RESULT_NAME = 'result.json'
_BLOCKS = 50  # points of a loss curve


class Evaluation(NamedTuple):
    """COCO's figures after ``step`` training steps, and the mean training loss since the evaluation before."""

    step: int
    loss: float | None
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_s: float | None
    ap_m: float | None
    ap_l: float | None


class LossPoint(NamedTuple):
    """Mean training loss of a block of steps; ``step`` is the block's last."""

    step: int
    loss: float | None


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes:
        config: what its model is called, see :func:`.config_files.model_name`.
        seed: seed of weights, order of the images and noise.
        steps: training steps.
        batch_size: images in a step.
        image_size: height and width in px of the first validation image as the network gets it.
        val_set: annotation file of the evaluation.
        data_order: digest of the ids of all training images in the order in which they came; equal digests: the same
            images in the same order.
        device: name of the GPU, or the number of threads on the CPU.
        torch: version of torch.
        finished: date, ISO 8601.
        parameters: number of the model's parameters, frozen ones included.
        flops: floating-point operations of one forward pass on that image, see :func:`.cost.count_flops`.
        step_seconds: median time of a training step without data loading; None: too few steps.
        memory_mb: peak memory in 10^6 bytes, see :func:`.cost.peak_memory_mb`.
        evaluations: in the order of their steps; the last is that of the last step.
        losses: training loss over the run.
    """

    config: str
    seed: int
    steps: int
    batch_size: int
    image_size: tuple[int, int]
    val_set: str
    data_order: str
    device: str
    torch: str
    finished: str
    parameters: int
    flops: int
    step_seconds: float | None
    memory_mb: float
    evaluations: tuple[Evaluation, ...]
    losses: tuple[LossPoint, ...]

    @property
    def final(self) -> Evaluation:
        """The evaluation after the last step."""
        return self.evaluations[-1]

    def to_json(self) -> dict[str, Any]:
        """As plain containers."""
        content = asdict(self)
        content['evaluations'] = [record._asdict() for record in self.evaluations]
        content['losses'] = [record._asdict() for record in self.losses]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunResult:
        """The inverse of :meth:`to_json`."""
        fields = dict(content)
        fields['image_size'] = tuple(fields['image_size'])
        fields['evaluations'] = tuple(Evaluation(**record) for record in fields['evaluations'])
        fields['losses'] = tuple(LossPoint(**record) for record in fields['losses'])
        return cls(**fields)


def evaluation_of(step: int, losses: Sequence[float], metrics: Mapping[str, float]) -> Evaluation:
    """Read what CocoMetric returned; ``losses`` are those since the evaluation before.

    A detector that finds nothing at all gets no figures from CocoMetric: its AP is 0.
    """
    averages = {key.rsplit('bbox_', 1)[1]: value for key, value in metrics.items() if 'bbox_mAP' in key}
    if 'mAP' not in averages:
        averages = {'mAP': 0.0, 'mAP_50': 0.0, 'mAP_75': 0.0}
    names = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
    return Evaluation(step, mean_loss(losses), *(_existing(averages.get(name)) for name in names))


def _existing(value: float | None) -> float | None:
    """A figure, or None for COCO's -1: no object of that kind in the set."""
    return None if value is None or value < 0 or not math.isfinite(value) else float(value)


def mean_loss(losses: Sequence[float]) -> float | None:
    """The mean; None where there is none or it isn't finite."""
    mean = math.fsum(losses) / len(losses) if losses and all(map(math.isfinite, losses)) else math.nan
    return mean if math.isfinite(mean) else None


def loss_curve(losses: Sequence[float]) -> tuple[LossPoint, ...]:
    """The losses of steps 1, 2, ... as means over at most 50 blocks of equal length, the last perhaps shorter."""
    length = max(1, math.ceil(len(losses) / _BLOCKS))
    starts = range(0, len(losses), length)
    return tuple(
        LossPoint(min(start + length, len(losses)), mean_loss(losses[start : start + length])) for start in starts
    )


def write_result(folder: Path, result: RunResult) -> None:
    """Mark the run of a folder as finished."""
    write_json(folder / RESULT_NAME, result.to_json())


def read_result(folder: Path) -> RunResult | None:
    """What the finished run of a folder found; None: it isn't finished.

    Raises:
        InputError: the file is not one of :func:`write_result`.
    """
    path = folder / RESULT_NAME
    if not path.is_file():
        return None
    try:
        return RunResult.from_json(json.loads(path.read_text(encoding='utf-8')))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f'{path} is not a result of `iouquery compare` ({error}); remove it to run again') from error

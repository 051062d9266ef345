"""The metrics of a run on a single image, without a trace in them."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor

from ...config_options import as_list
from ...errors import InputError
from .config_mistakes import entries

# its numbers about queries are left out where they do not exist, as may be for one image
_MAY_BE_ABSENT = 'selection/'


def evaluate_image(evaluator: Evaluator, batch: Any, predictions: Sequence[Any]) -> tuple[set[str], list[str]]:
    """Let copies of the metrics evaluate what a model has found in an image.

    Nothing is exchanged with other processes.

    Args:
        batch: the image, as its data loader gives it.
        predictions: data samples with predictions, as the model gives them.

    Returns:
        Names of the values computed, and the metrics left out because they evaluate in a way of their own.
    """
    names: set[str] = set()
    left_out = []
    samples = [sample.to_dict() if hasattr(sample, 'to_dict') else sample for sample in map(_with_a_box, predictions)]
    with tempfile.TemporaryDirectory() as folder:
        for metric in evaluator.metrics:
            if type(metric).evaluate is not BaseMetric.evaluate:
                left_out.append(f'{type(metric).__name__}, which evaluates in its own way')
                continue
            twin = _twin(metric, folder, samples)
            twin.process(batch, samples)
            computed = twin.compute_metrics(copy.deepcopy(twin.results)) or {}
            names |= {f'{twin.prefix}/{name}' if twin.prefix else name for name in computed}
    return names, left_out


def check_save_best(cfg: Config, names: set[str]) -> None:
    """Raise InputError where ``save_best`` waits for a value that is not computed: a KeyError at the first validation.

    Args:
        names: of the values that are.
    """
    for key, entry in entries(cfg.get('default_hooks') or {}, 'default_hooks'):
        for name in as_list(entry.get('save_best')):
            if name in (None, 'auto') or name in names or str(name).startswith(_MAY_BE_ABSENT):
                continue
            raise InputError(
                f'{key}.save_best={name!r}, which no metric of val_evaluator computes; name one of these: '
                f'{", ".join(sorted(names))}'
            )


def _twin(metric: BaseMetric, folder: str, samples: Sequence[Mapping[str, Any]]) -> BaseMetric:
    """A copy that shares the ground truth, knows of these images alone and writes its files into the folder."""
    twin = copy.copy(metric)
    for name, value in vars(metric).items():
        if isinstance(value, (list, dict, set)):
            setattr(twin, name, copy.copy(value))
        elif name.startswith('out') and isinstance(value, str):
            setattr(twin, name, str(Path(folder) / Path(value).name))
    twin.results = []
    images = [sample.get('img_id') for sample in samples]
    if getattr(twin, 'img_ids', 0) is None and None not in images:  # COCO's, which else takes those of the whole file
        twin.img_ids = images
    return twin


def _with_a_box(sample: Any) -> Any:
    """At least one detection, as metrics of COCO's kind end early where there is none, and finite numbers.

    Weights that are not trained yet may give others, at which a metric may stop.
    """
    for instances in sample.values() if isinstance(sample, BaseDataElement) else ():
        for name, value in instances.items() if isinstance(instances, InstanceData) else ():
            if isinstance(value, Tensor) and value.is_floating_point():
                instances[name] = value.nan_to_num(0.0, 0.0, 0.0)
    instances_found = getattr(sample, 'pred_instances', None)
    if (
        isinstance(instances_found, InstanceData)
        and not len(instances_found)
        and set(instances_found.keys()) == {'bboxes', 'labels', 'scores'}
    ):
        sample.pred_instances = InstanceData(
            bboxes=instances_found.bboxes.new_tensor([[0.0, 0.0, 9.0, 9.0]]),
            labels=instances_found.labels.new_zeros(1),
            scores=instances_found.scores.new_ones(1),
        )
    return sample

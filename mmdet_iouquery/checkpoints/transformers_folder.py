"""A folder that Hugging Face's ``from_pretrained`` opens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .convert import TRAINING_ALONE, left_out
from .detector import build_detector, check_fit
from .folders import write_folder
from .preprocessing import PROCESSOR
from .safetensors_file import write_safetensors
from .transformers import their_names
from .transformers_config import HuggingFaceConfig, transformers_config

FILES = ('config.json', PROCESSOR, 'model.safetensors')

UNUSED_LAYERS = 'decoder layers behind the last that the config runs in prediction'
FROZEN_COUNTERS = 'batch counters of norms that are frozen there, as in the config'

_COUNTER = 'num_batches_tracked'
_OF_LAYER = re.compile(r'bbox_head\.decoder\.(?:layers|cls_heads|bbox_heads|quality_heads)\.(\d+)\.')


class HuggingFaceModel(NamedTuple):
    """What such a folder holds."""

    config: HuggingFaceConfig
    weights: dict[str, Tensor]
    dropped: dict[str, list[str]]
    """Reason to our keys that are not in it."""


def to_transformers(
    weights: Mapping[str, Tensor], cfg: Mapping[str, Any], classes: Sequence[str], checkpoint: object
) -> HuggingFaceModel:
    """Weights under our names, of a detector of ours, as a model of transformers.

    Args:
        weights: of a whole detector.
        cfg: its config, see :func:`transformers_config`.
        classes: names of the classes, by label.
        checkpoint: where the weights are from, for messages.

    Raises:
        InputError: transformers has no such model, or the weights are not the config's.
    """
    config = transformers_config(cfg, classes)
    check_fit(build_detector(cfg), weights, checkpoint)
    frozen, depth = config.model['freeze_backbone_batch_norms'], config.model['decoder_layers']
    counted = {key[: -len('running_mean')] + _COUNTER for key in weights if key.endswith('.running_mean')}
    complete = {**{key: torch.tensor(0) for key in sorted(counted)}, **weights}  # files of frozen norms lack some
    dropped = {
        UNUSED_LAYERS: [key for key in complete if (layer := _OF_LAYER.match(key)) and int(layer[1]) >= depth],
        FROZEN_COUNTERS: [key for key in complete if frozen and key.startswith('backbone.') and key.endswith(_COUNTER)],
    }
    dropped[TRAINING_ALONE] = left_out(complete, 'transformers')
    without = {key for keys in dropped.values() for key in keys}
    theirs = their_names({key: value for key, value in complete.items() if key not in without})
    dropped = {reason: [key for key in keys if key in weights] for reason, keys in dropped.items()}
    return HuggingFaceModel(
        config, {**theirs, **_point_counts(config.model)}, {reason: keys for reason, keys in dropped.items() if keys}
    )


def _point_counts(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """What RT-DETRv2 and D-FINE keep beside weights: for each sampling point, one over their number on its level."""
    name = {'rt_detr_v2': 'n_points_scale', 'd_fine': 'num_points_scale'}.get(config['model_type'])
    if name is None:
        return {}
    points = config['decoder_n_points']
    points = [points] * config['num_feature_levels'] if isinstance(points, int) else points
    scale = torch.tensor([1 / number for number in points for _ in range(number)])
    return {f'model.decoder.layers.{i}.encoder_attn.{name}': scale for i in range(config['decoder_layers'])}


def write_transformers(folder: Path, model: HuggingFaceModel, notes: Mapping[str, Any], *, force: bool = False) -> None:
    """Write the folder; see :func:`write_folder` for what is raised."""
    write = (
        partial(_write_json, model.config.model),
        partial(_write_json, model.config.preprocessor),
        partial(write_safetensors, weights=model.weights, notes=notes),
    )
    write_folder(folder, dict(zip(FILES, write)), force=force)


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')

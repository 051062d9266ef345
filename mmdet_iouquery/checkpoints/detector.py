"""A detector from a config, and whether weights are its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..errors import InputError
from .class_head import has_class_rows
from .initializer import check_constants
from .prefix_map import is_of_training_alone


def build_detector(cfg: Mapping[str, Any]) -> nn.Module:
    """The model of a config, with any weights; the config stays as it is.

    Raises:
        InputError: it has none.
    """
    if not isinstance(cfg.get('model'), Mapping):
        raise InputError('the config has no model=dict(...); name the config of a detector')
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    return MODELS.build(copy.deepcopy(cfg['model']))


def check_fit(model: nn.Module, weights: Mapping[str, Tensor], checkpoint: object) -> None:
    """Compare weights with the model that they are meant for.

    Args:
        model: built with any weights.
        weights: under the model's names.
        checkpoint: the file they are from, named in the error.

    Raises:
        InputError: shapes differ (as for another number of classes), weights are missing or unknown (as for another
            architecture), naming the first of them and the remedy; or they were trained with other constants. A
            distillation's weights may be missing, or there for a model without one.
    """
    wanted = model.state_dict()
    differing = [key for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    classes = [key for key in differing if has_class_rows(key)]
    if classes and len(classes) == len(differing):
        has, needs = len(weights[classes[0]]), len(wanted[classes[0]])
        raise InputError(
            f'{checkpoint} was trained for another number of classes: {classes[0]} has {has} rows, the model needs '
            f'{needs}; set num_classes to that of the checkpoint, or keep the rows of shared classes with '
            f'`iouquery convert --classes`'
        )
    optional = {key for key in wanted if key.endswith('num_batches_tracked') or is_of_training_alone(key)}
    missing = [key for key in wanted if key not in weights and key not in optional]
    unknown = [key for key in weights if key not in wanted and not is_of_training_alone(key)]
    problems = [
        f'{len(keys)} {problem} (such as {keys[0]})'
        for keys, problem in ((differing, 'of another shape'), (missing, 'missing'), (unknown, 'unknown to the model'))
        if keys
    ]
    if problems:
        raise InputError(
            f'{checkpoint} does not fit the model: weights {", ".join(problems)}; use the config it was trained with, '
            f'or convert it with `iouquery convert` if it comes from another project'
        )
    check_constants(model, weights, checkpoint)

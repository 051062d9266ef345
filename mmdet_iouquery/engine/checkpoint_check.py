"""Does a checkpoint fit a model? Asked before a run starts."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ..checkpoints import unwrap
from ..checkpoints.class_head import has_class_rows
from ..checkpoints.initializer import load_checkpoint
from ..errors import InputError


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights in a checkpoint file or URL; :class:`InputError` when it is missing or no checkpoint."""
    return unwrap(load_checkpoint(str(path)))


def check_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Compare a checkpoint with the model it is meant for.

    Raises:
        InputError: shapes differ (as for another number of classes), or weights are missing or unknown (as for another
            architecture), naming the first of them and the remedy.
    """
    weights, wanted = load_weights(path), model.state_dict()
    differing = [key for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    classes = [key for key in differing if has_class_rows(key)]
    if classes and len(classes) == len(differing):
        has, needs = len(weights[classes[0]]), len(wanted[classes[0]])
        raise InputError(
            f'{path} was trained for another number of classes: {classes[0]} has {has} rows, the model needs {needs}; '
            f'set num_classes to that of the checkpoint, or keep the rows of shared classes with '
            f'tools/convert_checkpoint.py --classes'
        )
    missing = [key for key in wanted if key not in weights and not key.endswith('num_batches_tracked')]
    unknown = [key for key in weights if key not in wanted]
    problems = [
        f'{len(keys)} {what} (such as {keys[0]})'
        for keys, what in ((differing, 'of another shape'), (missing, 'missing'), (unknown, 'unknown to the model'))
        if keys
    ]
    if problems:
        raise InputError(
            f'{path} does not fit the model: weights {", ".join(problems)}; use the config it was trained with, or '
            f'convert it with tools/convert_checkpoint.py if it comes from another project'
        )

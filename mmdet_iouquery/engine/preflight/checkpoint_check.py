"""Does a checkpoint fit a model, and is it what it is asked for? Asked before a run starts.

mmengine reads a checkpoint that torch refuses, because it holds code, a second time without that guard. What is asked
here reads tensors only, and comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...checkpoints import unwrap
from ...checkpoints.detector import check_fit
from ...checkpoints.initializer import load_checkpoint
from ...config_options import type_name
from ...errors import InputError
from .config_mistakes import entries

_FROM_FILES = ('Pretrained', 'PretrainedInit', 'ConvertedPretrained')


def check_checkpoint(model: nn.Module, path: str | Path, *, to_resume: bool = False) -> dict[str, Tensor]:
    """Compare a checkpoint with the model it is meant for.

    Args:
        model: the model, built with any weights.
        path: file or URL of the checkpoint.
        to_resume: a training is to go on from it, which takes more than weights.

    Returns:
        its weights.

    Raises:
        InputError: it cannot be read without running code from it; shapes differ (as for another number of classes),
            or weights are missing or unknown (as for another architecture), naming the first of them and the remedy;
            they were trained with other constants; or it has no state of a training and that is needed.
    """
    content = load_checkpoint(str(path))
    if to_resume:
        _check_training_state(path, content)
    weights = unwrap(content)
    check_fit(model, weights, path)
    return weights


def check_pretrained(model: object) -> None:
    """Read what the initialisers from files below a model's config name, without running code from it.

    Not a teacher's: it reads its own, and has other remedies.

    Raises:
        InputError: a file is missing, cannot be fetched, is damaged or holds code; names the entry.
    """
    for entry, path in _pretrained(model):
        try:
            load_checkpoint(path)
        except InputError as error:
            raise InputError(
                f'{entry}: {error}; or start from random weights, with --weights none, or {entry}=None'
            ) from error


def _pretrained(model: object) -> Iterator[tuple[str, str]]:
    for entry, node in entries(model, 'model'):
        path = node.get('checkpoint')
        if '.teacher.' not in entry and type_name(node) in _FROM_FILES and isinstance(path, str):
            yield entry, path


def _check_training_state(path: str | Path, content: Mapping[str, Any]) -> None:
    meta = content.get('meta')
    lacking = [name for name in ('message_hub', 'optimizer') if name not in content]
    lacking += [f'meta.{name}' for name in ('epoch', 'iter') if not isinstance(meta, Mapping) or name not in meta]
    if lacking:
        raise InputError(
            f'{path} holds no state of a training to go on from ({", ".join(lacking)} missing); begin a new one from '
            'its weights with --cfg-options load_from=FILE, without --resume'
        )

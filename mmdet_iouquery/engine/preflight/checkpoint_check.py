"""Does a checkpoint fit a model, and is it what it is asked for? Asked before a run starts.

mmengine reads a checkpoint that torch refuses, because it holds code, a second time without that guard. What is asked
here reads tensors only, and comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from ...checkpoints import unwrap
from ...checkpoints.detector import check_fit
from ...checkpoints.initializer import ConvertedPretrained, load_checkpoint
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


def check_pretrained(cfg: object, model: nn.Module | None = None) -> None:
    """Read what the initialisers from files below a model's config name, without running code from it.

    Not a teacher's: it reads its own, and has other remedies.

    Args:
        cfg: of the model.
        model: built of it; where it is given, what ``ConvertedPretrained`` loads is compared with it.

    Raises:
        InputError: a file is missing, cannot be fetched, is damaged, holds code or does not fit; names the entry.
    """
    modules = {} if model is None else dict(model.named_modules())
    for entry, node in _pretrained(cfg):
        module = modules.get(entry.removeprefix('model.').removesuffix('.init_cfg'))
        try:
            if module is not None and type_name(node) == ConvertedPretrained.__name__:
                WEIGHT_INITIALIZERS.build(dict(node)).weights_for(module)
            else:
                load_checkpoint(node['checkpoint'])
        except InputError as error:
            raise InputError(
                f'{entry}: {error}; or start from random weights, with --weights none, or {entry}=None'
            ) from error


def _pretrained(cfg: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry, node in entries(cfg, 'model'):
        of_file = type_name(node) in _FROM_FILES and isinstance(node.get('checkpoint'), str)
        if '.teacher.' not in entry and of_file:
            yield entry, node


def _check_training_state(path: str | Path, content: Mapping[str, Any]) -> None:
    meta = content.get('meta')
    lacking = [name for name in ('message_hub', 'optimizer') if name not in content]
    lacking += [f'meta.{name}' for name in ('epoch', 'iter') if not isinstance(meta, Mapping) or name not in meta]
    if lacking:
        raise InputError(
            f'{path} holds no state of a training to go on from ({", ".join(lacking)} missing); begin a new one from '
            'its weights with --cfg-options load_from=FILE, without --resume'
        )

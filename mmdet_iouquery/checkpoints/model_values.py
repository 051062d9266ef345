"""What a config says of how its model predicts, and what the training that left a checkpoint said of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config_options import flattened, type_name
from ..errors import InputError
from .flat_config import parse_flat_config

_NOT_PREDICTING = {
    *('init_cfg', 'pretrained', 'train_cfg', 'criterion', 'denoising', 'dn_cfg', 'assigner', 'loss_cls', 'loss_bbox'),
    *('loss_iou', 'loss_distill', 'batch_augments', 'teacher', 'keep_selected'),
    *('frozen_stages', 'norm_eval', 'with_cp', 'dropout', 'drop_path_rate'),
}
"""Of a model's config, at any depth."""
_ELSEWHERE = ('data_preprocessor.', 'test_cfg.')
"""What is meant to differ between training and use, or has notes of its own."""
_NAMED = 3
"""Values that are listed."""


def predicting_values(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of how its model predicts, by dotted keys, but for how weights begin and learn."""
    return flattened(_predicting(cfg.get('model') or {}))


def _predicting(node: Any) -> Any:
    if isinstance(node, Mapping):
        items = ((key, value) for key, value in node.items() if key not in _NOT_PREDICTING and value is not None)
        return {key: type_name(node) if key == 'type' else _predicting(value) for key, value in items}
    return [_predicting(item) for item in node] if isinstance(node, (list, tuple)) else node


def training_config(meta: Mapping[str, Any]) -> Config | None:
    """That which a run has noted in a checkpoint's ``meta``, empty where none has; None: not without running it."""
    text = meta.get('cfg')
    try:
        return parse_flat_config(text, Path('meta.cfg')) if isinstance(text, str) else Config()
    except InputError:
        return None


def model_notes(cfg: Mapping[str, Any], meta: Mapping[str, Any], name: str | Path) -> list[str]:
    """A sentence where a config's model computes otherwise than the one whose training left a checkpoint.

    Weights of one can fit the other, as those of DEIM, whose decoder has SiLUs, fit D-FINE, and detect worse there.

    Args:
        cfg: whole.
        meta: of the checkpoint.
        name: of the checkpoint.
    """
    trained = training_config(meta)
    if not trained or 'model' not in trained or 'model' not in cfg:
        return []
    theirs, own = predicting_values(trained), predicting_values(cfg)
    keys = [key for key in {**theirs, **own} if theirs.get(key) != own.get(key) and not key.startswith(_ELSEWHERE)]
    if not keys:
        return []
    first = '; '.join(
        f'model.{key} is {_said(own, key)} in the config, and {_said(theirs, key)} in the training that left {name}'
        for key in keys[:_NAMED]
    )
    more = f'; and {len(keys) - _NAMED} more values differ' if len(keys) > _NAMED else ''
    return [f'{first}{more}; unless that is meant, take the config that it was trained with']


def _said(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else 'not given'

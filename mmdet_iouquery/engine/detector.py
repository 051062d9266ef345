"""A trained detector from a config and a checkpoint, for looking at it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from ..config_files import find_config
from ..config_options import merge_options
from ..errors import InputError
from ..models import hosts
from .preflight.checkpoint_check import check_checkpoint
from .preflight.config_mistakes import named_mistakes


def read_config(name: str, options: dict[str, Any] | None = None) -> Config:
    """A config file, or one that came with the package, with overrides.

    Raises:
        InputError: there is neither, one that it is based on is gone, or a module that it names cannot be imported.
    """
    path = find_config(name)
    with named_mistakes({}, f'reading {path}'):
        try:
            cfg = Config.fromfile(path)
        except FileNotFoundError as error:
            raise InputError(f'{path} needs a file that is gone: {error.filename or error}') from error
        except OSError as error:  # of an ending that no config has
            raise InputError(f'{path} is no config ({error}); name the config first, then the checkpoint') from error
        merge_options(cfg, options)
    return cfg


def load_detector(cfg: Config, checkpoint: str | Path) -> nn.Module:
    """Build a config's model, give it a checkpoint's weights, and set it to evaluation, on the CPU.

    mmdet's own detection transformers are built as their adapters, which are the same model and tell of their queries.

    Raises:
        InputError: the config has a mistake; the checkpoint is missing, is none, or does not fit.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model_cfg = copy.deepcopy(cfg.model)
    model_cfg.type = adapter_of(model_cfg.type)
    without_initial_weights(model_cfg)  # the checkpoint has them
    with named_mistakes(cfg, 'building the model'):
        detector = MODELS.build(model_cfg)
    weights = check_checkpoint(detector, checkpoint)
    detector.load_state_dict(weights, strict=False)  # all that may be missing are batch counters
    return detector.eval()


def without_initial_weights(model_cfg: ConfigDict) -> None:
    """Take out of a model's config, in place, the weights that it and its backbone begin with."""
    for part in (model_cfg, model_cfg.get('backbone')):
        if part is not None and 'init_cfg' in part:
            part.init_cfg = None


def begin_at_random(cfg: Config) -> None:
    """Take out of a config, in place, all weights that a training would begin with."""
    without_initial_weights(cfg.model)
    cfg.load_from = None


def default_device() -> str:
    """``cuda`` where torch sees a device of that kind, else ``cpu``."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def adapter_of(name: str) -> str:
    """The name of the adapter of one of mmdet's detectors; any other name as it is."""
    bare = name.rsplit('.', 1)[-1]
    return next((adapter for adapter in hosts.__all__ if adapter == f'IoUQuery{bare}'), name)

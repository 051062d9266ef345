"""What a config and a checkpoint tell of a model that is exported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS

from iouquery_runtime.files import sha256

from ..checkpoints.class_names import trained_class_names
from ..checkpoints.files import checkpoint_file
from ..checkpoints.model_values import predicting_values
from ..checkpoints.preprocessing import test_dataset
from ..config_options import type_name
from ..errors import InputError
from .graph import check_kind
from .metadata import ModelSource

_PADDING = ('Pad', 'BatchFixedSizePad', 'LetterResize', 'YOLOv5KeepRatioResize')
_RESIZING = ('Resize', 'AntialiasedResize')
_STRETCH = "dict(type='Resize', scale=({0}, {0}), keep_ratio=False)"
_OTHERS = ('LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs', 'ToUint8')


def source_of(cfg: Any, checkpoint: str | Path) -> ModelSource:
    """Read a config's test pipeline and the names of its classes.

    Raises:
        InputError: the pipeline does more than stretch the whole image to one size, which is all that a runtime does;
            or the checkpoint is no file.
    """
    step = check_source(cfg)
    size, resize = _resize(step)
    path = checkpoint_file(checkpoint)
    return ModelSource(
        names=trained_class_names(cfg, path) or None,
        default_size=size,
        resize=resize,
        config=Path(cfg.filename).name,
        model=predicting_values(cfg),
        checkpoint_sha256=sha256(path),
    )


def check_source(cfg: Any) -> Mapping[str, Any]:
    """The step that resizes images for a model that a graph can be made of, as far as a config tells.

    Raises:
        InputError: see :func:`source_of`; or no graph is made of such a detector, see :func:`.graph.check_kind`.
    """
    model = cfg.get('model') or {}
    kinds = [MODELS.get(type_name(entry)) for entry in (model, model.get('bbox_head') or {})]
    if all(isinstance(kind, type) for kind in kinds):
        check_kind(*kinds)
    dataset = test_dataset(cfg)
    if not dataset:
        raise InputError(
            f'{cfg.filename} has neither a test_dataloader nor a val_dataloader with a pipeline, which says how images '
            'are resized; add one'
        )
    steps = [step for step in dataset['pipeline'] if type_name(step) not in _OTHERS]
    for step in steps:
        _check_step(step, cfg.filename)
    if len(steps) != 1:
        raise InputError(
            f'the test pipeline of {cfg.filename} resizes images {len(steps)} times; an exported file takes images '
            f'stretched to one size: have one {_STRETCH.format(640)} in it'
        )
    return steps[0]


def _check_step(step: Mapping[str, Any], filename: str) -> None:
    name = type_name(step)
    remedy = f'use {_STRETCH.format(_side(step))} alone'
    if name in _PADDING:
        raise InputError(
            f'the test pipeline of {filename} pads images ({name}), and a graph cannot know where they end; {remedy}, '
            'and train or fine-tune the model so'
        )
    if name not in _RESIZING or not step.get('scale'):
        raise InputError(
            f'the test pipeline of {filename} has {name}, which no runtime of exported files does; {remedy}'
        )
    if step.get('keep_ratio', False):
        raise InputError(
            f'the test pipeline of {filename} resizes with keep_ratio=True, so that images would have to be padded, '
            f'and a graph cannot know where they end; {remedy}, and train or fine-tune the model so'
        )


def _side(step: Mapping[str, Any]) -> int:
    """In px, of a square instead of what a step resizes to."""
    scale = step.get('scale') or 0
    longest = max(scale) if isinstance(scale, (list, tuple)) else scale
    return longest if longest and longest % 32 == 0 else 640


def resize_of(cfg: Any) -> tuple[tuple[int, int], dict[str, Any]] | None:
    """Height and width that a config's test pipeline resizes to, and how; None: it does not."""
    for step in test_dataset(cfg).get('pipeline') or ():
        if type_name(step) in _RESIZING and step.get('scale'):
            return _resize(step)
    return None


def _resize(step: Mapping[str, Any]) -> tuple[tuple[int, int], dict[str, Any]]:
    scale = step['scale']
    width, height = scale if isinstance(scale, (list, tuple)) else (scale, scale)
    antialias = type_name(step) == 'AntialiasedResize' or step.get('backend') == 'pillow'
    how = {'mode': 'stretch', 'interpolation': step.get('interpolation', 'bilinear'), 'antialias': antialias}
    return (height, width), how

"""Weights to begin with, whoever saved them, with a row for each class of the data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from torch import Tensor

from ...checkpoints import sources_of, unwrap
from ...checkpoints.class_head import num_classes_of
from ...checkpoints.class_names import parse_class_names, plain_meta
from ...checkpoints.convert import convert
from ...checkpoints.convert_file import convert_file
from ...checkpoints.detector import build_detector, check_fit
from ...checkpoints.files import checkpoint_file, read_checkpoint
from ...engine.preflight.config_mistakes import named_mistakes
from ...errors import InputError
from .fit import nodes

NAME = 'weights.pth'
_PUBLISHED = {80: 'coco', 365: 'objects365', 366: 'objects365-by-id'}
"""Sets that weights are published for, by the number of classes."""


def fitted_weights(path: str | Path, classes: Sequence[str], folder: Path) -> tuple[Path, Callable[[], str]]:
    """A checkpoint with this package's names and a row for each class.

    A file that has both already is taken as it is. Any other is to be converted, to :data:`NAME` in ``folder``: a class
    that the file names keeps its row, others start afresh.

    Args:
        path: the checkpoint, of any source that is known.
        classes: names of the data's.
        folder: where a converted file is written.

    Returns:
        The file, and a call that writes it, if need be, and says what was done.

    Raises:
        InputError: the file cannot be read, or its keys are of no source; it does not tell its classes.
    """
    content = read_checkpoint(path)
    weights = unwrap(content)
    source = _source(path, weights)
    noted = content.get('meta')
    named = plain_meta(noted.get('dataset_meta') or {}) if isinstance(noted, Mapping) else {}
    trained = named.get('classes') or _unnamed_classes(path, convert(weights, source), classes)
    if source == 'mmdet' and tuple(trained) == tuple(classes):
        return checkpoint_file(path), lambda: f'{path}: of the same classes, taken as it is'

    def written() -> str:
        summary = convert_file(
            path, folder / NAME, source, source_classes=[*trained], target_classes=[*classes], force=True
        )
        return str(summary)

    return folder / NAME, written


def check_weights(cfg: Config, path: str | Path, *, any_classes: bool) -> None:
    """Whether a checkpoint is of the config's model, before anything is written.

    Args:
        cfg: that is to be trained.
        path: the checkpoint.
        any_classes: it may be of any source that is known, and of other classes, for :func:`fitted_weights`.

    Raises:
        InputError: it is not, or the model cannot be built.
    """
    weights = unwrap(read_checkpoint(path))
    model = copy.deepcopy(cfg.model)
    if any_classes:
        weights = convert(weights, _source(path, weights))
        for node in nodes(model):
            if 'num_classes' in node:
                node['num_classes'] = num_classes_of(weights)
    with named_mistakes(dict(model=model), 'building the model'):
        detector = build_detector(dict(cfg, model=model))
    check_fit(detector, weights, path)


def _source(path: str | Path, weights: Mapping[str, Tensor]) -> str:
    sources = [source for source in sources_of(weights) if not source.endswith('_backbone')]
    if not sources:
        raise InputError(
            f'{path} holds no detector of this package, of the authors of RT-DETR, D-FINE or DEIM, or of transformers, '
            f'but weights such as {next(iter(weights))}; name one of the kinds that `iouquery convert --help` '
            'lists'
        )
    return sources[0]


def _unnamed_classes(path: str | Path, weights: Mapping[str, Tensor], classes: Sequence[str]) -> Sequence[str]:
    count = num_classes_of(weights)
    if count == len(classes):
        return classes
    if count not in _PUBLISHED:
        raise InputError(
            f'{path} has {count} classes and no names for them, and the data has {len(classes)}; give the names by '
            f'`iouquery convert --source-classes A,B,... --classes {",".join(classes)}`'
        )
    return parse_class_names(_PUBLISHED[count])

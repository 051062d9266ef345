"""What an exported file says about itself: format 1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import torch

from iouquery_runtime.metadata import num_tokens

from ..errors import InputError
from ..version import __version__
from .graph import STRIDE, Deployed

if TYPE_CHECKING:
    from .export import ExportSettings

FORMAT = '1'


@dataclass(frozen=True)
class ModelSource:
    """Where an exported model comes from, as far as it is known."""

    names: tuple[str, ...] | None = None
    """Of the classes, in the order of labels; None: '0', '1' and so on."""
    default_size: tuple[int, int] | None = None
    """Height and width that images are resized to; None: those of the export."""
    resize: Mapping[str, Any] | None = None
    """``mode``, ``interpolation`` and ``antialias``; None: stretched, bilinear, antialiased."""
    config: str = ''
    """Name of the config's file."""
    checkpoint_sha256: str = ''
    config_options: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of the config."""
    model: Mapping[str, Any] | None = None
    """Of the config, by dotted keys, see :func:`~.checkpoints.model_values.predicting_values`; None: not known."""


RESIZE = {'mode': 'stretch', 'interpolation': 'bilinear', 'antialias': True}


def origin(source: ModelSource, settings: ExportSettings) -> dict[str, str]:
    """The part of :func:`describe` that is known before the model is built: of what, and how, a file was written.

    A file of the same origin is the same.
    """
    return {
        'config': source.config,
        'checkpoint_sha256': source.checkpoint_sha256,
        'config_options': json.dumps(dict(source.config_options), sort_keys=True, default=str),
        'package_version': __version__,
        'settings': json.dumps({**asdict(settings), 'opset': settings.written_opset}, sort_keys=True),
        'precision': settings.precision,  # which a file in eight bits, made of this one, has not
        'test_pipeline': json.dumps({'size': source.default_size, 'resize': source.resize}, sort_keys=True),
        **({} if source.names is None else {'names': json.dumps(_by_label(source.names))}),
        **({} if source.model is None else {'model': json.dumps(dict(source.model), sort_keys=True)}),
    }


def describe(source: ModelSource, settings: ExportSettings, deployed: Deployed, num_queries: int) -> dict[str, str]:
    """The ``metadata_props`` of a file; all values are text, JSON where they are more than a word.

    Those of a file of any size say ``strides`` and ``min_tokens``, by which a runtime knows which images are too small.

    Raises:
        InputError: there are names for another number of classes.
    """
    num_classes, prediction = deployed.num_classes, deployed.prediction_settings
    names = source.names or tuple(map(str, range(num_classes)))
    if len(names) != num_classes:
        raise InputError(
            f'the model has {num_classes} classes, and {len(names)} names are given: {", ".join(names)}; give one for '
            'each'
        )
    mean, std = deployed.normalise.statistics
    test_cfg = {
        'score_thr': prediction.score_thr or None,
        'overlap_thr': prediction.overlap_thr,
        'calibration': prediction.calibration,
    }
    of_any_size = tokens_needed(deployed, num_queries, settings.size) if settings.dynamic_size else {}
    structured = {
        **of_any_size,
        'names': _by_label(names),
        'imgsz': None if settings.dynamic_size else [*settings.size],
        'default_imgsz': [*_default_size(source, settings, **of_any_size)],
        'mean': mean,
        'std': std,
        'resize': dict(source.resize or RESIZE),
        'test_cfg': test_cfg,
        'float32_layers': [],
    }
    return {
        'iouquery.format': FORMAT,
        'task': 'detect',
        'input': settings.input,
        'output': 'raw' if settings.raw else 'detections',
        'channel_order': 'RGB',
        'num_queries': str(num_queries),
        'max_per_img': str(prediction.max_per_img),
        'torch_version': torch.__version__,
        'opset': str(settings.written_opset),
        'attention': settings.attention,
        **{key: json.dumps(value) for key, value in structured.items()},
        **origin(source, settings),
    }


def _by_label(names: Sequence[str]) -> dict[str, str]:
    return {str(label): name for label, name in enumerate(names)}


def tokens_needed(deployed: Deployed, num_queries: int, size: Sequence[int]) -> dict[str, Any]:
    """Of the tokens that queries are chosen from: ``strides`` in px of their maps, and how many there have to be.

    Raises:
        InputError: an image of ``size`` has fewer tokens than the detector has queries; what is written of it would
            have another number of queries at each size.
    """
    detector: Any = deployed.detector
    selector = detector.bbox_head.query_selector
    if not getattr(selector, 'selects_tokens', False):
        return {'strides': [], 'min_tokens': 0}
    strides = detector.strides()
    asked = deployed.prediction_settings.num_queries or selector.num_queries
    if num_queries < asked:
        square = next(side for side in count(STRIDE, STRIDE) if num_tokens((side, side), strides) >= asked)
        raise InputError(
            f'an image of {size[0]}x{size[1]} (height x width) has {num_tokens(size, strides)} tokens, too few to '
            f'choose {asked} queries from, as many as a file of any size has to have; name a larger size: of square '
            f'ones, --size {square} {square} or more'
        )
    per_token = selector.cls_head.out_features if getattr(selector, 'rank', 'token') == 'token_class' else 1
    return {'strides': strides, 'min_tokens': -(-num_queries // per_token)}


def _default_size(
    source: ModelSource, settings: ExportSettings, strides: Sequence[int] = (), min_tokens: int = 0
) -> tuple[int, int]:
    """The config's size, unless a file of any size cannot take it."""
    size = source.default_size or settings.size
    fits = not any(side % STRIDE for side in size) and num_tokens(size, strides) >= min_tokens
    return size if fits or not settings.dynamic_size else settings.size

"""What images a checkpoint was trained on: written into its ``meta`` on conversion, compared with a config."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..choices import AUTHORS
from ..config_options import type_name
from .convert import unwrap

KEY = 'preprocessing'
"""Of a checkpoint's ``meta``."""
PROCESSOR = 'preprocessor_config.json'
"""Of transformers, beside the weights."""

RTDETR = {
    'mean': [0.0, 0.0, 0.0],
    'std': [255.0, 255.0, 255.0],
    'channel_order': 'RGB',
    'scale': [640, 640],
    'keep_ratio': False,
}
DAB_DETR = {
    'mean': [123.675, 116.28, 103.53],
    'std': [58.395, 57.12, 57.375],
    'channel_order': 'RGB',
    'scale': [1333, 800],
    'keep_ratio': True,
}
DEIMV2 = {name: value for name, value in RTDETR.items() if name != 'scale'}
"""Of the sizes with an HGNetv2: each has an input size of its own."""
VIT = {**RTDETR, 'mean': DAB_DETR['mean'], 'std': DAB_DETR['std']}
"""Of the sizes with a ViT, and of ECDet."""
OF_SOURCE: dict[str, dict[str, Any]] = {
    **dict.fromkeys((*AUTHORS, 'transformers'), RTDETR),
    'deimv2': DEIMV2,
    'ecdet': VIT,
    'dab_detr': DAB_DETR,
}
"""Of the detectors of :data:`~mmdet_iouquery.checkpoints.SOURCES`: (pixel - mean) / std of pixels 0..255 in
``channel_order``; ``scale`` is width and height of the input, or, with ``keep_ratio``, the bounds of its sides."""


def preprocessing_of(source: str, content: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """What weights of ``source`` were trained on: what an earlier conversion has noted, or transformers' own file says.

    Args:
        content: of the checkpoint file.
        path: of the checkpoint file.
    """
    noted = _noted(content.get('meta'))
    if noted is None and source == 'transformers':
        noted = _of_processor(path.with_name(PROCESSOR))
    if noted is None and source == 'deimv2' and any('.dinov3.' in key for key in unwrap(content)):
        return VIT
    return noted or OF_SOURCE.get(source)


def _of_processor(path: Path) -> dict[str, Any] | None:
    """What a ``preprocessor_config.json`` does to images; None: there is none, or one that does not just stretch."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        scale = [int(content['size'][side]) for side in ('width', 'height')]
        shares = (
            [content[f'image_{name}'] for name in ('mean', 'std')] if content.get('do_normalize') else [[0.0], [1.0]]
        )
        mean, std = (_three([round(255 * value, 6) for value in values]) for values in shares)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {**RTDETR, 'mean': mean, 'std': std, 'scale': scale}


def preprocessing_notes(cfg: Mapping[str, Any], meta: Mapping[str, Any], name: str | Path) -> list[str]:
    """What differs between a config's preprocessing and that which a checkpoint has noted, a sentence for each.

    Empty where all is equal, and where the checkpoint has noted nothing.

    Args:
        cfg: its ``data_preprocessor`` and the resize of its test pipeline, or of that for validation, are looked at.
        meta: of the checkpoint.
        name: of the checkpoint.
    """
    noted, own = _noted(meta), preprocessing_of_config(cfg)
    return [
        f'{key} {own[value]}, and {name} was trained with {noted[value]}; unless that is meant, take the latter'
        for value, key in _PLACES.items()
        if noted and value in noted and value in own and own[value] != noted[value]
    ]


_PLACES = {
    'mean': 'the data_preprocessor subtracts the mean',
    'std': 'the data_preprocessor divides by the std',
    'channel_order': 'the data_preprocessor gives the model channels in the order',
    'scale': 'the test pipeline resizes to the scale (width, height)',
    'keep_ratio': 'the test pipeline resizes with keep_ratio',
}


def _noted(meta: object) -> dict[str, Any] | None:
    noted = meta.get(KEY) if isinstance(meta, Mapping) else None
    return dict(noted) if isinstance(noted, Mapping) else None


def preprocessing_of_config(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a config does to images, in the words of :data:`RTDETR`, without what it does not say."""
    settings = (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor')
    preprocessing: dict[str, Any] = {}
    if isinstance(settings, Mapping):
        swapped = settings.get('bgr_to_rgb', False) or settings.get('rgb_to_bgr', False)
        preprocessing['channel_order'] = 'RGB' if swapped else 'BGR'  # mmcv loads BGR
        preprocessing['mean'] = _three(settings.get('mean') or [0])  # without a mean nothing is normalised
        preprocessing['std'] = _three(settings.get('std') or [1])
    for step in _test_steps(cfg):
        if type_name(step) == 'Resize' and step.get('scale'):
            keep_ratio, scale = bool(step.get('keep_ratio', False)), [*_pair(step['scale'])]
            # bounds of the longer and the shorter side, in either order
            preprocessing.update(keep_ratio=keep_ratio, scale=sorted(scale, reverse=True) if keep_ratio else scale)
    return preprocessing


def _three(values: Sequence[float]) -> list[float]:
    """One number for each channel, as floats."""
    return [float(value) for value in ([*values] * 3 if len(values) == 1 else values)]


def _pair(scale: Any) -> Sequence[int]:
    return scale if isinstance(scale, (list, tuple)) else (scale, scale)


def test_dataset(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data set with the test pipeline, or that for validation, below whatever wraps it; empty: there is none."""
    node = (cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in node and isinstance(node.get('dataset'), Mapping):
        node = node['dataset']
    return node if 'pipeline' in node else {}


def _test_steps(cfg: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for step in test_dataset(cfg).get('pipeline') or ():
        if isinstance(step, Mapping):
            yield step

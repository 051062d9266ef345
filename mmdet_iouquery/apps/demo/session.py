"""What the page stands on: which checkpoints there are, and a model that looks at one image at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from PIL import Image

from ...checkpoints.class_names import trained_class_names
from ...config_files import config_path
from ...config_options import type_name
from ...datasets.image_files import ImageError
from ...engine.detector import load_detector, read_config
from ...engine.resume import is_complete
from ...engine.trained_files import config_in, model_files
from ...errors import InputError
from ..analyze.trace import QueryTrace, parts_of, trace

FIRST_RUN = 'quickstart'
"""The run whose checkpoints come first: what ``make quickstart`` trains."""


class Found(NamedTuple):
    """A checkpoint and the config it was trained with."""

    name: str
    """To tell it from others by."""
    config: Path
    checkpoint: Path


def found_checkpoints(work_dirs: str | Path) -> list[Found]:
    """All whole checkpoints under a folder that have their config beside them.

    The quickstart's run comes first, then that with the newest checkpoint; in each run the newest comes first.
    """
    root = Path(work_dirs)
    runs: dict[Path, list[Path]] = {}
    for path in sorted(root.rglob('*.pth'), key=_age):
        if is_complete(path):
            runs.setdefault(path.parent, []).append(path)
    entries_found = []
    for folder in sorted(runs, key=lambda folder: folder != root / FIRST_RUN):  # others stay in their order
        config = config_in(folder)
        if config is not None:
            entries_found += [Found(path.relative_to(root).as_posix(), config, path) for path in runs[folder]]
    return entries_found


def named_checkpoint(checkpoint: str | Path, config: str | Path | None = None) -> Found:
    """A checkpoint that the user names.

    Args:
        checkpoint: its file; or the work folder of a training, whose best or newest one is meant.
        config: a file, or a shipped config's name; None: the file beside the checkpoint.

    Raises:
        InputError: one of them isn't there.
    """
    if Path(checkpoint).is_dir() and config is None:
        return Found(str(checkpoint), *map(Path, model_files([str(checkpoint)])))
    checkpoint = Path(checkpoint)
    if not checkpoint.is_file():
        raise InputError(f'there is no checkpoint {checkpoint}')
    if config is not None:
        return Found(str(checkpoint), Path(config if Path(config).is_file() else config_path(str(config))), checkpoint)
    beside = config_in(checkpoint.parent)
    if beside is None:
        raise InputError(f'there is no config beside {checkpoint}; name it with --config')
    return Found(str(checkpoint), beside, checkpoint)


def _age(path: Path) -> tuple[float, str]:
    return -path.stat().st_mtime, str(path)


class Look(NamedTuple):
    """An image, and what the queries of a model went through on it."""

    image: Image.Image
    """As the config's pipeline loads it, RGB; boxes are in its px."""
    trace: QueryTrace


class DemoModel:
    """A model with its weights, and the images' way into it.

    It serves one call at a time.

    Args:
        config: a config file with a test or validation set, whose pipeline the images take.
        checkpoint: its weights.

    Attributes:
        classes: names by label; empty where nobody knows them.

    Raises:
        InputError: the model has no queries, the checkpoint doesn't fit it, or the config lacks a pipeline or a base.
    """

    def __init__(self, config: str | Path, checkpoint: str | Path) -> None:
        cfg = read_config(str(config))
        detector = load_detector(cfg, checkpoint)
        parts_of(detector)
        self._detector = detector.to('cuda' if torch.cuda.is_available() else 'cpu')
        dataset = _test_set(cfg)
        self._pipeline = [TRANSFORMS.build(step) for step in dataset['pipeline'] if not _reads_annotations(step)]
        self.classes = trained_class_names(cfg, checkpoint)
        self._last: tuple[Any, Look] | None = None

    def look(self, path: str | Path) -> Look:
        """Run the model on an image, unless it is the last one and unchanged.

        Raises:
            InputError: the file can't be read as an image, or see :func:`~mmdet_iouquery.apps.analyze.trace.trace`.
        """
        image = str(path), os.stat(path).st_mtime_ns
        if self._last is None or self._last[0] != image:
            self._last = image, self._run(Path(path))
        return self._last[1]

    def _run(self, path: Path) -> Look:
        load, *others = self._pipeline
        try:
            data = load({'img_path': str(path), 'img_id': 0})
        except (AssertionError, OSError, cv2.error, InputError) as error:  # what decoders and loaders make of others
            why = f' ({error.__cause__})' if isinstance(error.__cause__, ImageError) else ''
            raise InputError(f'{path.name} is no image that can be read{why}; take a JPEG or PNG file') from error
        image = Image.fromarray(np.ascontiguousarray(data['img'][..., ::-1], dtype=np.uint8))
        for transform in others:
            data = transform(data)
        return Look(image, trace(self._detector, data))


def _test_set(cfg: Config) -> Mapping[str, Any]:
    for split in ('test', 'val'):
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset', {})
        if dataset.get('pipeline'):
            return dataset
    raise InputError(f'{cfg.filename} has neither a test_dataloader nor a val_dataloader with a pipeline for images')


def _reads_annotations(transform: Mapping[str, Any]) -> bool:
    return type_name(transform).endswith('LoadAnnotations')

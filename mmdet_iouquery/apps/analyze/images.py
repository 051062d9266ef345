"""The images of a config's data set, one by one, with their ground truth as it lies on the disk."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from torch import nn

from ...errors import InputError
from ...evaluation.selection_quality import Objects
from .trace import QueryTrace, trace


class Images:
    """A data set of a config.

    Args:
        cfg: the config.
        split: 'test', 'val' or 'train', whose data loader names the set; images of any go through the pipeline of
            'test', or of 'val' where that is the split.

    Raises:
        InputError: the config has no such data loader, or the set has no annotated object at all.
    """

    def __init__(self, cfg: Config, split: str = 'val') -> None:
        loaders = {name: cfg.get(f'{name}_dataloader') for name in ('train', 'val', 'test')}
        if not loaders.get(split):
            raise InputError(f'{cfg.filename} has no {split}_dataloader; name one of its own: {_named(loaders)}')
        dataset_cfg = copy.deepcopy(loaders[split].dataset)
        if split == 'train':
            dataset_cfg = _with_test_pipeline(dataset_cfg, loaders['val'] or loaders['test'], cfg)
        dataset_cfg['test_mode'] = True
        self.dataset = DATASETS.build(dataset_cfg)
        self.classes: tuple[str, ...] = tuple(self.dataset.metainfo.get('classes', ()))
        if not any(len(self.objects(i).labels) for i in range(len(self))):
            raise InputError(
                f'the {split} set of {cfg.filename} ({dataset_cfg.get("ann_file", "")}) has no annotated object in '
                f'{len(self)} images; queries are compared with objects: name a set with annotations'
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def objects(self, index: int) -> Objects:
        """Ground truth of an image, crowds and ignored boxes left out."""
        instances = self.dataset.get_data_info(index).get('instances', [])
        kept = [instance for instance in instances if not instance.get('ignore_flag')]
        boxes = np.array([instance['bbox'] for instance in kept], dtype=float).reshape(-1, 4)
        return Objects(boxes, np.array([instance['bbox_label'] for instance in kept], dtype=int))

    def trace(self, detector: nn.Module, index: int, *, seed: int = 0) -> QueryTrace:
        """What a detector's queries go through on an image."""
        return trace(detector, self.dataset[index], self.objects(index), seed=seed)


def _named(loaders: dict[str, Any]) -> str:
    return ', '.join(f'{name}_dataloader' for name, loader in loaders.items() if loader) or 'none'


def _with_test_pipeline(dataset: Any, loader: Any, cfg: Config) -> Any:
    if loader is None or 'pipeline' not in loader.dataset:
        raise InputError(
            f'{cfg.filename} has no val_dataloader or test_dataloader whose pipeline the images can take; add one'
        )
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    return {**dataset, 'pipeline': loader.dataset.pipeline}

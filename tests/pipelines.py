"""The training pipelines that we ship, and what must hold of whatever comes out of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from mmdet_iouquery import config_path

CONFIGS = {'coco': 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', 'quickstart': 'quickstart/rtdetr_r18vd_digits.py'}
SCALES = {'coco': (640, 640), 'quickstart': (128, 128)}


@cache
def _steps(name: str) -> list[dict[str, Any]]:
    return Config.fromfile(config_path(CONFIGS[name])).train_dataloader.dataset.pipeline


def pipeline(name: str, *, scale: tuple[int, int] | None = None, on_error: str = 'raise') -> list[dict[str, Any]]:
    """The training pipeline of a shipped config, resizing to ``scale`` (width, height)."""
    steps = copy.deepcopy(_steps(name))
    for step in steps:
        if step['type'].endswith('Resize') and scale:
            step['scale'] = scale
        if 'on_error' in step:
            step['on_error'] = on_error
    return steps


def built(steps: list[dict[str, Any]]) -> Compose:
    """The transforms of a pipeline, to be called with one image after the other."""
    init_default_scope('mmdet')
    return Compose(steps)


def run(transforms: Compose, path: Path, boxes: Sequence[Sequence[float]], **results: Any) -> Any:
    """Send one image with corner boxes through; every third box is a crowd, labels count 0, 1, 2, 0, ..."""
    instances = [dict(bbox=list(box), bbox_label=i % 3, ignore_flag=int(i % 3 == 2)) for i, box in enumerate(boxes)]
    return transforms({'img_path': str(path), 'img_id': 1, 'instances': instances, **results})


def check_laws(packed: dict[str, Any], scale: tuple[int, int], num_classes: int = 3) -> None:
    """A uint8 image of the size asked for; finite boxes with an area, within the image; labels in range."""
    image, sample = packed['inputs'], packed['data_samples']
    assert image.dtype == torch.uint8 and tuple(image.shape) == (3, scale[1], scale[0])
    assert tuple(sample.img_shape) == (scale[1], scale[0])
    for instances in (sample.gt_instances, sample.ignored_instances):
        boxes = instances.bboxes.tensor
        assert torch.isfinite(boxes).all()
        assert (boxes >= 0).all() and (boxes[:, 0::2] <= scale[0]).all() and (boxes[:, 1::2] <= scale[1]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(instances.labels) == len(boxes)
        assert ((instances.labels >= 0) & (instances.labels < num_classes)).all()
    assert (sample.gt_instances.labels != 2).all(), 'a crowd among the targets'

"""Models and batches of the benchmarks."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from ...config_files import config_path
from ...models.data_preprocessors import DistillingDataPreprocessor
from .arguments import FAMILIES, FAMILY_OF


def model_config(name: str) -> Any:
    """The ``model`` of a shipped config, without pretrained weights and random sizes."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path(FAMILIES[FAMILY_OF[name]][name])).model
    cfg.backbone.init_cfg = None
    cfg.data_preprocessor.batch_augments = None
    return cfg


def detector(name: str) -> Any:
    """The shipped config's, with random weights; where a teacher is, :func:`teacher_map` stands."""
    model = MODELS.build(model_config(name))
    preprocessor = model.data_preprocessor
    if isinstance(preprocessor, DistillingDataPreprocessor):
        preprocessor.teacher = lambda images, _: teacher_map(images, preprocessor.projector.out_features)
    return model


def teacher_map(images: Tensor, channels: int = 768) -> Tensor:
    """A random map (B, channels, H / 32, W / 32) as RT-DETRv4's teacher makes, which is not measured: made once."""
    return _random_map((images.shape[0], channels, images.shape[2] // 32, images.shape[3] // 32)).to(images.device)


@cache
def _random_map(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Batch:
    """Random images and boxes.

    Args:
        size: images. side: of them, in px. objects: boxes of each.
    """

    def __init__(self, size: int, side: int, objects: int, device: torch.device) -> None:
        draw = torch.Generator().manual_seed(0)
        self.images = torch.rand(size, 3, side, side, generator=draw).to(device)
        self.labels = [torch.randint(80, (objects,), generator=draw).to(device) for _ in range(size)]
        self.boxes = [self._boxes(objects, draw).to(device) for _ in range(size)]
        self.side = side

    @staticmethod
    def _boxes(count: int, draw: torch.Generator) -> Tensor:
        size = 0.05 + 0.35 * torch.rand(count, 2, generator=draw)
        centre = size / 2 + (1 - size) * torch.rand(count, 2, generator=draw)
        return torch.cat([centre, size], dim=1)

    def samples(self) -> SampleList:
        """As mmdet's preprocessor leaves them."""
        return [self._sample(labels, boxes) for labels, boxes in zip(self.labels, self.boxes)]

    def _sample(self, labels: Tensor, boxes: Tensor) -> DetDataSample:
        shape = (self.side, self.side)
        sample = DetDataSample(
            metainfo={
                'img_shape': shape,
                'ori_shape': shape,
                'batch_input_shape': shape,
                'pad_shape': shape,
                'scale_factor': (1.0, 1.0),
            }
        )
        centre, size = boxes.split(2, dim=1)
        boxes_xyxy = torch.cat([centre - size / 2, centre + size / 2], dim=1) * self.side
        sample.gt_instances = InstanceData(bboxes=boxes_xyxy, labels=labels)
        return sample

"""Models and batches of the benchmarks."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...config_files import config_path

FAMILIES = {
    'rtdetr': {'R18': 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', 'R50': 'rtdetr/rtdetr_r50vd_8xb2-72e_coco.py'},
    'dfine': {
        'D-FINE-N': 'dfine/dfine_hgnetv2-n_8xb16-160e_coco.py',
        'D-FINE-S': 'dfine/dfine_hgnetv2-s_8xb4-132e_coco.py',
        'D-FINE-M': 'dfine/dfine_hgnetv2-m_8xb4-132e_coco.py',
        'D-FINE-L': 'dfine/dfine_hgnetv2-l_8xb4-80e_coco.py',
        'D-FINE-X': 'dfine/dfine_hgnetv2-x_8xb4-80e_coco.py',
    },
    'deim': {
        'DEIM-N': 'deim/deim-dfine_hgnetv2-n_8xb16-160e_coco.py',
        'DEIM-S': 'deim/deim-dfine_hgnetv2-s_8xb4-132e_coco.py',
        'DEIM-M': 'deim/deim-dfine_hgnetv2-m_8xb4-102e_coco.py',
        'DEIM-L': 'deim/deim-dfine_hgnetv2-l_8xb4-58e_coco.py',
        'DEIM-X': 'deim/deim-dfine_hgnetv2-x_8xb4-58e_coco.py',
    },
}
"""The shipped configs of each family's models, by the names of our tables."""

FAMILY_OF = {name: family for family, models in FAMILIES.items() for name in models}


def model_config(name: str) -> Any:
    """The ``model`` of a shipped config, without pretrained weights and random sizes."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path(FAMILIES[FAMILY_OF[name]][name])).model
    cfg.backbone.init_cfg = None
    cfg.data_preprocessor.batch_augments = None
    return cfg


def detector(name: str) -> nn.Module:
    """The shipped config's, with random weights."""
    return MODELS.build(model_config(name))


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
        corners = torch.cat([centre - size / 2, centre + size / 2], dim=1) * self.side
        sample.gt_instances = InstanceData(bboxes=corners, labels=labels)
        return sample

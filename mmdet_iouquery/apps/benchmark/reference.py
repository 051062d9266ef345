"""The authors' RT-DETR (lyuwenyu/RT-DETR, ``rtdetr_pytorch``), from a checkout of the user's, as a side to measure.

Nothing of it is part of this package: a folder is put on Python's path, and its own classes are called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError

NAME = "the authors'"
COMMIT = '068dfde'
"""The one that our figures compare with."""


class Reference:
    """Models and criterion of the authors', with their configs' settings for COCO.

    Args:
        folder: their ``rtdetr_pytorch``.

    Raises:
        InputError: the folder is not it, or what it needs is not installed (torchvision among others).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        if not (self.folder / 'src' / 'zoo' / 'rtdetr').is_dir():
            raise InputError(
                f'--reference {folder}: no src/zoo/rtdetr in there; give the folder rtdetr_pytorch of a clone of '
                f'https://github.com/lyuwenyu/RT-DETR at {COMMIT}'
            )
        if str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))
        try:
            self._zoo = importlib.import_module('src.zoo.rtdetr')
            self._resnet = importlib.import_module('src.nn.backbone.presnet')
        except ImportError as error:
            raise InputError(f'--reference {folder}: it does not import ({error}); install what it needs') from error

    def model(self, depth: int, side: int | None) -> nn.Module:
        """R18 or R50 with random weights; ``side`` px of square images for which it keeps its tables, None: none."""
        r18 = depth == 18
        size = None if side is None else [side, side]
        channels = [128, 256, 512] if r18 else [512, 1024, 2048]
        backbone = self._resnet.PResNet(
            depth=depth,
            variant='d',
            return_idx=[1, 2, 3],
            num_stages=4,
            freeze_at=-1 if r18 else 0,
            freeze_norm=not r18,
            pretrained=False,
        )
        encoder = self._zoo.HybridEncoder(
            in_channels=channels,
            feat_strides=[8, 16, 32],
            hidden_dim=256,
            expansion=0.5 if r18 else 1.0,
            eval_spatial_size=size,
        )
        decoder = self._zoo.RTDETRTransformer(
            num_classes=80,
            feat_channels=[256] * 3,
            feat_strides=[8, 16, 32],
            num_queries=300,
            num_decoder_layers=3 if r18 else 6,
            num_denoising=100,
            eval_spatial_size=size,
        )
        return self._zoo.RTDETR(backbone, encoder, decoder, multi_scale=None)

    def deployed(self, depth: int, side: int) -> nn.Module:
        """As they ship it for prediction: ``deploy()``, which merges RepVGG blocks."""
        model = self.model(depth, side).eval()
        module: Any
        for module in model.modules():
            if hasattr(module, 'convert_to_deploy'):
                module.convert_to_deploy()
        return model

    @cached_property
    def criterion(self) -> Any:
        """Matching and losses."""
        matcher = self._zoo.HungarianMatcher(
            {'cost_class': 2, 'cost_bbox': 5, 'cost_giou': 2}, use_focal_loss=True, alpha=0.25, gamma=2.0
        )
        weights = {'loss_vfl': 1, 'loss_bbox': 5, 'loss_giou': 2}
        return self._zoo.SetCriterion(matcher, weights, ['vfl', 'boxes'], num_classes=80, alpha=0.75, gamma=2.0)

    def targets(self, labels: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Ground truth in their form: labels (T,) and normalised cx, cy, w, h (T, 4) of each image."""
        return [{'labels': image_labels, 'boxes': some} for image_labels, some in zip(labels, boxes)]

    def loss(self, model: nn.Module, images: Tensor, targets: list[dict[str, Any]]) -> Tensor:
        """As their engine: the criterion outside of autocast."""
        outputs = model(images, targets)
        with torch.autocast(images.device.type, enabled=False):
            return sum(self.criterion(outputs, targets).values())

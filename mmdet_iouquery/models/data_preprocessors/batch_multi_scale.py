"""Multi-scale training, as RT-DETR does it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.logging import MessageHub
from torch import Tensor, nn

from ...argument_checks import check_choice, check_counts
from ...errors import InputError

MODES = ('nearest', 'nearest-exact', 'bilinear', 'bicubic', 'area')


@MODELS.register_module()
class BatchMultiScale(nn.Module):
    """Resize each training batch to a square of random size, with its boxes.

    mmdet's ``BatchSyncRandomResize`` draws from an even range; the recipe of RT-DETR draws from a list in which 640
    stands three times. The size depends on the seed and the iteration alone, so all processes agree without a word
    between them, and a resumed run goes on as it would have.

    Args:
        sizes: sides in pixels to draw from, evenly; write one more often to make it likelier.
        mode: of the interpolation; the authors' is 'nearest'.
        seed: of the draw.
        stop_epoch: from this epoch on, counted from 0, batches keep their size (RT-DETRv2); None: never. A run
            that counts steps (``IterBasedTrainLoop``) stays in epoch 0.
    """

    def __init__(
        self, sizes: Sequence[int], *, mode: str = 'nearest', seed: int = 0, stop_epoch: int | None = None
    ) -> None:
        super().__init__()
        whole = isinstance(sizes, Sequence) and all(isinstance(size, int) and size > 0 for size in sizes)
        if not whole or not sizes:
            raise InputError(f'sizes must be a list of positive numbers of pixels, got {sizes!r}')
        check_choice(MODES, mode=mode)
        if stop_epoch is not None:
            check_counts(stop_epoch=stop_epoch)
        self.sizes = tuple(sizes)
        self.mode = mode
        self.seed = seed
        self.stop_epoch = stop_epoch

    def size_at(self, iteration: int) -> int:
        """Side in pixels of the batch of ``iteration``."""
        return random.Random(f'{self.seed}/{iteration}').choice(self.sizes)

    def forward(self, inputs: Tensor, data_samples: SampleList) -> tuple[Tensor, SampleList]:
        """inputs (B, 3, H, W) to (B, 3, S, S); boxes and shapes in the samples follow."""
        run = MessageHub.get_current_instance()
        if self.stop_epoch is not None and run.get_info('epoch', 0) >= self.stop_epoch:
            return inputs, data_samples
        size = self.size_at(run.get_info('iter', 0))
        height, width = inputs.shape[-2:]
        if (height, width) == (size, size):
            return inputs, data_samples
        scale_y, scale_x = size / height, size / width
        for sample in data_samples:
            sample.set_metainfo(
                {
                    'img_shape': (round(sample.img_shape[0] * scale_y), round(sample.img_shape[1] * scale_x)),
                    'pad_shape': (size, size),
                    'batch_input_shape': (size, size),
                }
            )
            for name in ('gt_instances', 'ignored_instances'):
                if name in sample:
                    boxes = getattr(sample, name).bboxes
                    getattr(sample, name).bboxes = boxes * boxes.new_tensor([scale_x, scale_y, scale_x, scale_y])
        return F.interpolate(inputs, size=(size, size), mode=self.mode), data_samples

    def extra_repr(self) -> str:
        return f'sizes={self.sizes}, mode={self.mode!r}, stop_epoch={self.stop_epoch}'

"""What augmentations that blend the images of a batch have in common: whether, how much, and what they refuse."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from mmdet.structures import SampleList
from mmengine.logging import MessageHub
from torch import Tensor, nn

from ...argument_checks import check_counts, check_names, check_numbers, check_range
from ...errors import InputError

STAGE = 'augmentation_stage'
"""Under this name the message hub holds the stage of the training, as ``AugmentationTimetableHook`` says it."""

MIXED = 'mix_up_ratio'
"""Under this name the ``metainfo`` of a sample that ``BatchMixUp`` has mixed has what is left of its own image."""


class BatchBlend(nn.Module):
    """Images of a batch blended with one another, in some batches of some stages; what comes in stays as it is.

    Args:
        prob: of a batch being blended.
        ratio_range: the least and the greatest share b that an image keeps; drawn for the batch.
        stages: of an ``AugmentationTimetableHook``, in which batches are blended; None: in all of the training.
        seed: of the draw.

    Raises:
        InputError: an argument is none of these; an image comes with masks, which can't be blended.
    """

    draw_name: ClassVar[str]
    """Begins the draw's seed, so that each augmentation draws for itself."""

    def __init__(
        self,
        *,
        prob: float = 0.5,
        ratio_range: Sequence[float] = (0.45, 0.55),
        stages: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_numbers(most=1, prob=prob)
        check_counts(least=None, seed=seed)
        low, high = check_range('ratio_range', ratio_range, least=0)
        check_numbers(most=1, **{'ratio_range[1]': high})
        if stages is not None:
            check_names(stages=stages)
        self.prob = prob
        self.ratio_range = low, high
        self.stages = None if stages is None else tuple(stages)
        self.seed = seed

    def ratio_at(self, iteration: int) -> float | None:
        """What is left of each image in the batch of ``iteration``; None: it is not blended."""
        draw = random.Random(f'{self.draw_name}/{self.seed}/{iteration}')
        return draw.uniform(*self.ratio_range) if draw.random() < self.prob else None

    @abstractmethod
    def blend(self, inputs: Tensor, data_samples: SampleList, ratio: float) -> tuple[Tensor, SampleList]:
        """The batch, in which images keep the share ``ratio`` of what is blended."""

    def check(self, data_samples: SampleList) -> None:
        """Raise :class:`InputError` where samples come with what can't be blended."""
        if any('masks' in sample.gt_instances or 'gt_sem_seg' in sample for sample in data_samples):
            raise InputError(
                f'{type(self).__name__} mixes images with boxes only, but they come with masks; leave it out'
            )

    def forward(self, inputs: Tensor, data_samples: SampleList) -> tuple[Tensor, SampleList]:
        """inputs (B, 3, H, W) to another of that shape, and samples that have all boxes in it."""
        if self.stages is not None and MessageHub.get_current_instance().get_info(STAGE, None) not in self.stages:
            return inputs, data_samples
        ratio = self.ratio_at(current_iteration())
        if ratio is None:
            return inputs, data_samples
        self.check(data_samples)
        return self.blend(inputs, data_samples, ratio)

    def extra_repr(self) -> str:
        return f'prob={self.prob}, ratio_range={self.ratio_range}, stages={self.stages}'


def current_iteration() -> int:
    """The step that is being taken; 0 outside a training."""
    return MessageHub.get_current_instance().get_info('iter', 0)


def blended(images: Tensor, others: Tensor, ratio: float) -> Tensor:
    """``ratio`` times the images and the rest of the others, in the images' type; whole numbers are rounded."""
    mixed = torch.lerp(others.float(), images.float(), ratio)
    return (mixed if images.is_floating_point() else mixed.round()).to(images.dtype)

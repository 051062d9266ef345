"""DEIM's mixup: each image of a batch with the one before it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...argument_checks import check_counts, check_names, check_numbers, check_range
from ...errors import InputError

STAGE = 'augmentation_stage'
"""Under this name the message hub holds the stage of the training, as ``AugmentationTimetableHook`` says it."""

_INSTANCES = ('gt_instances', 'ignored_instances')


@MODELS.register_module()
class BatchMixUp(nn.Module):
    """Mix each image of a training batch with its neighbour; the boxes of both count in full (DEIM).

    Image i becomes b times itself and 1 - b times image i - 1 (of the first: the last), with one b for the batch. What
    is drawn depends on the seed and the iteration alone, so that all processes agree and a resumed run goes on as it
    would have. A batch of one image stays as it is. In ``batch_augments`` it comes before ``BatchMultiScale``.

    Args:
        prob: of a batch being mixed.
        ratio_range: the least and the greatest b.
        stages: of an ``AugmentationTimetableHook``, in which batches are mixed; None: in all of the training.
        seed: of the draw.

    Raises:
        InputError: an argument is none of these; an image comes with masks, which can't be mixed.
    """

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
        """What is left of each image in the batch of ``iteration``; None: it is not mixed."""
        draw = random.Random(f'mixup/{self.seed}/{iteration}')
        return draw.uniform(*self.ratio_range) if draw.random() < self.prob else None

    def forward(self, inputs: Tensor, data_samples: SampleList) -> tuple[Tensor, SampleList]:
        """inputs (B, 3, H, W) to another of that shape; each sample gets its neighbour's boxes behind its own."""
        run = MessageHub.get_current_instance()
        if len(data_samples) < 2 or (self.stages is not None and run.get_info(STAGE, None) not in self.stages):
            return inputs, data_samples
        ratio = self.ratio_at(run.get_info('iter', 0))
        if ratio is None:
            return inputs, data_samples
        neighbours = [data_samples[-1], *data_samples[:-1]]
        mixed = [_joined(*pair) for pair in zip(data_samples, neighbours)]
        return torch.lerp(inputs.roll(1, 0), inputs, ratio), mixed

    def extra_repr(self) -> str:
        return f'prob={self.prob}, ratio_range={self.ratio_range}, stages={self.stages}'


def _joined(sample: DetDataSample, neighbour: DetDataSample) -> DetDataSample:
    """A sample with the instances of two, on what both images cover."""
    joined = sample.new()
    shapes = zip(sample.img_shape[:2], neighbour.img_shape[:2])
    joined.set_metainfo({'img_shape': tuple(max(sides) for sides in shapes)})
    for name in _INSTANCES:
        if name in sample and name in neighbour:
            pair = [getattr(sample, name), getattr(neighbour, name)]
            if any('masks' in instances for instances in pair):
                raise InputError('BatchMixUp mixes images with boxes only, but they come with masks; leave it out')
            setattr(joined, name, InstanceData.cat(pair))
    return joined

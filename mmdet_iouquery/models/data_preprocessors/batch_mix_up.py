"""DEIM's mixup: each image of a batch with the one before it."""

from __future__ import annotations

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from .batch_blend import MIXED, BatchBlend, blended

_INSTANCES = ('gt_instances', 'ignored_instances')


@MODELS.register_module()
class BatchMixUp(BatchBlend):
    """Mix each image of a training batch with its neighbour; the boxes of both count in full (DEIM).

    Image i becomes b times itself and 1 - b times image i - 1 (of the first: the last), with one b for the batch. What
    is drawn depends on the seed and the iteration alone, so that all processes agree and a resumed run goes on as it
    would have. A batch of one image stays as it is. In ``batch_augments`` it comes before ``BatchCopyBlend`` and
    ``BatchMultiScale``.

    Args:
        prob: of a batch being mixed.
        ratio_range: the least and the greatest b.
        stages: of an ``AugmentationTimetableHook``, in which batches are mixed; None: in all of the training.
        seed: of the draw.

    Raises:
        InputError: an argument is none of these; an image comes with masks, which can't be mixed.
    """

    draw_name = 'mixup'

    def blend(self, inputs: Tensor, data_samples: SampleList, ratio: float) -> tuple[Tensor, SampleList]:
        """Each sample gets its neighbour's boxes behind its own."""
        if len(data_samples) < 2:
            return inputs, data_samples
        neighbours = [data_samples[-1], *data_samples[:-1]]
        mixed = [_joined(*pair) for pair in zip(data_samples, neighbours)]
        for sample in mixed:
            sample.set_metainfo({MIXED: ratio})
        return blended(inputs, inputs.roll(1, 0), ratio), mixed


def _joined(sample: DetDataSample, neighbour: DetDataSample) -> DetDataSample:
    """A sample with the instances of two, on what both images cover."""
    joined = sample.new()
    shapes = zip(sample.img_shape[:2], neighbour.img_shape[:2])
    joined.set_metainfo({'img_shape': tuple(max(sides) for sides in shapes)})
    for name in _INSTANCES:
        if name in sample and name in neighbour:
            setattr(joined, name, InstanceData.cat([getattr(sample, name), getattr(neighbour, name)]))
    return joined

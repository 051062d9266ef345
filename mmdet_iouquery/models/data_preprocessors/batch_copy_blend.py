"""DEIMv2's copy-blend: objects of a batch shine through in other places of it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.dist import get_rank
from mmengine.structures import InstanceData
from torch import Tensor

from ...argument_checks import check_counts, check_numbers, check_range
from ...errors import InputError
from .batch_blend import MIXED, BatchBlend, blended, current_iteration


class Object(NamedTuple):
    """One that can be pasted, in px of the network's input."""

    image: int
    """Of the batch."""
    instance: int
    """Of the image."""
    box: tuple[float, float, float, float]
    """Corners, inside the image."""
    left: int
    top: int
    width: int
    height: int
    """The whole px that the box touches."""


class Paste(NamedTuple):
    """An object, and how far to the right and down it goes."""

    source: Object
    right: int
    down: int
    margins: tuple[int, int, int, int]
    """Px of its surroundings that go with it: left, top, right, bottom."""


@MODELS.register_module()
class BatchCopyBlend(BatchBlend):
    """Blend objects of a training batch into its images, at random places, with their boxes and labels (DEIMv2).

    Each image gets ``num_objects`` different ones, drawn from all of the batch, its own among them: what is there
    becomes b times itself and 1 - b times the object, with one b for the batch. A strip of the object's surroundings
    comes along; its box goes without. Images differ in size: only objects that fit are drawn, none comes from the
    padding or gets there, and a box that reaches out of its image counts as what of it lies inside.

    Batches that ``BatchMixUp`` has mixed stay as they are: in ``batch_augments`` it comes behind that one, and before
    ``BatchMultiScale``. Whether a batch is blended depends on the seed and the iteration alone; what goes where also on
    the process, which has images of its own. A resumed run goes on as it would have. Boxes come to the host once.

    The authors' code asks for the area that the annotation states, in the image as it came, and cuts pasted boxes to
    whole px; here it is the area of the box, and boxes keep their fractions.

    Args:
        prob: of a batch being blended.
        num_objects: that an image gets; fewer where the batch has fewer.
        min_area: px² of the network's input that an object's box has at least.
        surroundings: the least and the greatest width of the strip at each side, drawn for the object as a share of its
            box's width (left and right) and height (top and bottom); it ends where either image does.
        ratio_range: the least and the greatest b.
        stages: of an ``AugmentationTimetableHook``, in which batches are blended; None: in all of the training.
        seed: of the draw.

    Raises:
        InputError: an argument is none of these; an image comes with masks or other things that can't be pasted.
    """

    draw_name = 'copy-blend'

    def __init__(
        self,
        *,
        prob: float = 0.5,
        num_objects: int = 3,
        min_area: float = 100,
        surroundings: Sequence[float] = (0.1, 0.25),
        ratio_range: Sequence[float] = (0.45, 0.55),
        stages: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(prob=prob, ratio_range=ratio_range, stages=stages, seed=seed)
        check_counts(num_objects=num_objects)
        check_numbers(min_area=min_area)
        self.num_objects = num_objects
        self.min_area = min_area
        self.surroundings = check_range('surroundings', surroundings, least=0)

    def check(self, data_samples: SampleList) -> None:
        """Raise :class:`InputError` where samples come with what can't be pasted."""
        super().check(data_samples)
        for sample in data_samples:
            for name, value in sample.gt_instances.items():
                if name != 'bboxes' and getattr(value, 'ndim', 1) != 1:
                    raise InputError(
                        f'{type(self).__name__} pastes objects with their boxes and labels, but they come with {name}, '
                        'which it cannot move; leave it out'
                    )

    def blend(self, inputs: Tensor, data_samples: SampleList, ratio: float) -> tuple[Tensor, SampleList]:
        """Each sample gets the boxes and labels of what is pasted behind its own."""
        if any(MIXED in sample.metainfo for sample in data_samples):
            return inputs, data_samples
        objects = self._objects(data_samples)
        draw = random.Random(f'{self.draw_name}/{self.seed}/{current_iteration()}/{get_rank()}')
        extents = [sample.img_shape[:2] for sample in data_samples]
        pastes = [self._draw(objects, extents, extent, draw) for extent in extents]

        images = inputs.clone()
        for image, of_image in zip(images, pastes):
            for paste in of_image:
                _paste(image, inputs[paste.source.image], paste, ratio)
        return images, _with_pasted(data_samples, pastes)

    def extra_repr(self) -> str:
        own = f'num_objects={self.num_objects}, min_area={self.min_area}, surroundings={self.surroundings}'
        return f'{super().extra_repr()}, {own}'

    def _objects(self, data_samples: SampleList) -> list[Object]:
        """All that are large enough."""
        boxes = torch.cat([sample.gt_instances.bboxes for sample in data_samples]).tolist()
        objects, start = [], 0
        for image, sample in enumerate(data_samples):
            (height, width), count = sample.img_shape[:2], len(sample.gt_instances)
            for instance, (x1, y1, x2, y2) in enumerate(boxes[start : start + count]):
                x1, x2 = (min(max(x, 0.0), width) for x in (x1, x2))
                y1, y2 = (min(max(y, 0.0), height) for y in (y1, y2))
                if x1 < x2 and y1 < y2 and (x2 - x1) * (y2 - y1) >= self.min_area:
                    left, top = math.floor(x1), math.floor(y1)
                    size = math.ceil(x2) - left, math.ceil(y2) - top
                    objects.append(Object(image, instance, (x1, y1, x2, y2), left, top, *size))
            start += count
        return objects

    def _draw(
        self,
        objects: Sequence[Object],
        extents: Sequence[tuple[int, int]],
        extent: tuple[int, int],
        draw: random.Random,
    ) -> list[Paste]:
        """What an image of ``extent`` (height, width) gets."""
        height, width = extent
        fitting = [source for source in objects if source.width <= width and source.height <= height]
        pastes = []
        for source in draw.sample(fitting, min(self.num_objects, len(fitting))):
            left, top = draw.randint(0, width - source.width), draw.randint(0, height - source.height)
            share = draw.uniform(*self.surroundings)
            aside, above = int(share * source.width), int(share * source.height)
            source_height, source_width = extents[source.image]
            margins = (
                min(aside, source.left, left),
                min(above, source.top, top),
                min(aside, source_width - source.left - source.width, width - left - source.width),
                min(above, source_height - source.top - source.height, height - top - source.height),
            )
            pastes.append(Paste(source, left - source.left, top - source.top, margins))
        return pastes


def _paste(image: Tensor, source: Tensor, paste: Paste, ratio: float) -> None:
    """Blend px of ``source`` (3, H, W) into those of ``image``."""
    pasted, (left, top, right, bottom) = paste.source, paste.margins
    x, y = pasted.left - left, pasted.top - top
    width, height = left + pasted.width + right, top + pasted.height + bottom
    target = image[:, y + paste.down : y + paste.down + height, x + paste.right : x + paste.right + width]
    target.copy_(blended(target, source[:, y : y + height, x : x + width], ratio))


def _with_pasted(data_samples: SampleList, pastes: Sequence[Sequence[Paste]]) -> SampleList:
    """Samples whose instances are their own and the pasted ones."""
    moved = [
        [edge + shift for edge, shift in zip(paste.source.box, (paste.right, paste.down) * 2)]
        for of_image in pastes
        for paste in of_image
    ]
    bboxes = data_samples[0].gt_instances.bboxes.new_tensor(moved).reshape(-1, 4)
    samples = []
    for sample, of_image, at in zip(data_samples, pastes, bboxes.split([len(of_image) for of_image in pastes])):
        if of_image:
            rows = [data_samples[paste.source.image].gt_instances[paste.source.instance] for paste in of_image]
            pasted, own = InstanceData.cat(rows), sample.gt_instances
            pasted.bboxes = at
            sample = sample.new()
            sample.gt_instances = InstanceData.cat([own, pasted])
        samples.append(sample)
    return samples

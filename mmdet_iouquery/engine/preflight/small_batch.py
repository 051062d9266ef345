"""A batch of one image of a data set, made small: boxes and masks go with it."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, IterableDataset

from ...errors import InputError

_LOOKED_AT = 8
_MEASURED = 10_000
_INSTANCES = {name: {'bboxes', 'labels', 'masks'} for name in ('gt_instances', 'ignored_instances')}


def check_batches(loader: DataLoader[Any], section: str) -> None:
    """Raise InputError where a data loader of the config's ``section`` has nothing to give."""
    if isinstance(loader.dataset, IterableDataset):
        return
    if len(loader) == 0:
        images: Any = loader.dataset
        raise InputError(
            f'{section} gives no batch: of {len(images)} images in batches of {_batch_size(loader)} a last one that is '
            'not full is dropped; take a smaller batch_size, or drop_last=False'
        )


def own_pipelines(dataset: Any) -> Any:
    """The same data with pipelines of its own, as transforms may keep what they have seen."""
    twin = copy.copy(dataset)
    if hasattr(dataset, 'pipeline'):
        twin.pipeline = copy.deepcopy(dataset.pipeline)
    if hasattr(dataset, 'dataset'):
        twin.dataset = own_pipelines(dataset.dataset)
    if hasattr(dataset, 'datasets'):
        twin.datasets = [own_pipelines(inner) for inner in dataset.datasets]
    return twin


def read_image(dataset: Any, *, with_boxes: bool = True) -> Any:
    """What the pipeline makes of the first image, or of the first with boxes among a few. The data set stays as it is.

    Raises:
        InputError: that is nothing that a model could be given.
    """
    twin, data = own_pipelines(dataset), None
    for index in range(min(_LOOKED_AT, len(dataset))):
        data = twin[index]
        if not with_boxes or _number_of_boxes(data):
            break
    if not isinstance(data, Mapping) or 'inputs' not in data:
        output = f'a dict of {", ".join(sorted(map(str, data)))}' if isinstance(data, Mapping) else type(data).__name__
        raise InputError(
            f'the pipeline gives {output} instead of inputs and data_samples; let it end with '
            "dict(type='PackDetInputs')"
        )
    return data


class SmallImage(NamedTuple):
    """The image of a data set that its pipeline makes the smallest."""

    path: str
    size: tuple[int, int]
    """Height and width in px."""
    bound: tuple[int, int]
    """The least height and the least width that were seen, also of different images."""


def smallest_image(dataset: Any, draws: int = 1) -> SmallImage | None:
    """The one which a pipeline that keeps ratios makes the smallest; None: the data set tells no sizes.

    That is the most elongated image where the longer side is bounded, and the squarest where the shorter one is.

    Args:
        dataset: its data's ``width`` and ``height`` are looked at, of :data:`_MEASURED` images at most.
        draws: how often each of the two is read, as a pipeline may draw sizes.
    """
    infos = dataset
    while not hasattr(infos, 'get_data_info') and hasattr(infos, 'dataset'):
        infos = infos.dataset
    if not hasattr(infos, 'get_data_info') or not len(infos):
        return None
    elongation = {}
    for index in range(0, len(infos), -(-len(infos) // _MEASURED)):
        info = infos.get_data_info(index)
        sides = [info.get(side) or 0 for side in ('width', 'height')]
        if min(sides) > 0:
            elongation[index] = max(sides) / min(sides)
    if not elongation:
        return None
    twin, sizes = own_pipelines(dataset), []
    for index in {choose(elongation, key=elongation.__getitem__) for choose in (max, min)}:
        path = str(infos.get_data_info(index).get('img_path'))
        images = [image for image in (twin[index] for _ in range(draws)) if image is not None]
        sizes += [(tuple(image['inputs'].shape[-2:]), path) for image in images]
    if not sizes:
        return None
    size, path = min(sizes, key=lambda pair: math.prod(pair[0]))
    heights, widths = zip(*(size for size, _ in sizes))
    return SmallImage(path, size, (min(heights), min(widths)))


def is_detection(data: Mapping[str, Any]) -> bool:
    """Whether it is an image (C, H, W) with a data sample of mmdet's; sets of videos, for one, give something else."""
    image = data.get('inputs')
    return isinstance(image, Tensor) and image.dim() == 3 and isinstance(data.get('data_samples'), DetDataSample)


def can_shrink(sample: DetDataSample) -> bool:
    """Whether boxes and masks are all that an image comes with."""
    return all(name in _INSTANCES and set(sample.get(name).keys()) <= _INSTANCES[name] for name in list(sample.keys()))


def small_batch(loader: DataLoader[Any], data: Mapping[str, Any], side: int | None, *, to_train: bool) -> Any:
    """A batch as the loader collates it: one image, or two to train where the run has at least two.

    Args:
        side: px of the square that the image is resized to; None: it stays as it is.
        to_train: boxes and masks are resized too; those to evaluate belong to the image as it came.
    """
    count = 2 if to_train and _batch_size(loader) > 1 else 1
    images = [copy.deepcopy(data) for _ in range(count)]
    return loader.collate_fn([image if side is None else _shrunk(image, side, to_train) for image in images])


def _batch_size(loader: DataLoader[Any]) -> int:
    """Also where a batch sampler knows it; 2 where nobody does."""
    return loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None) or 2


def _number_of_boxes(data: Any) -> int:
    sample = data.get('data_samples') if isinstance(data, Mapping) else None
    truth = getattr(sample, 'gt_instances', None)
    return len(truth) if isinstance(truth, InstanceData) else 0


def _shrunk(data: Mapping[str, Any], side: int, to_train: bool) -> dict[str, Any]:
    image, sample = data['inputs'], data['data_samples']
    height, width = image.shape[-2:]
    small = interpolate(image[None].float(), (side, side)).to(image.dtype)[0]
    sample.set_metainfo({name: (side, side) for name in ('img_shape', 'pad_shape') if name in sample.metainfo})
    for name in sample.keys() if to_train else ():
        _shrink_instances(sample.get(name), side / width, side / height, side)
    return {**data, 'inputs': small}


def _shrink_instances(instances: InstanceData, scale_x: float, scale_y: float, side: int) -> None:
    boxes = instances.get('bboxes')
    if isinstance(boxes, Tensor):
        instances.bboxes = boxes * torch.tensor([scale_x, scale_y] * 2)
    elif boxes is not None:
        boxes.rescale_((scale_x, scale_y))
    if 'masks' in instances:
        instances.masks = instances.masks.resize((side, side))

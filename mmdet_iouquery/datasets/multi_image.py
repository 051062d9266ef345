"""A data set whose transforms may ask for further images of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.registry import DATASETS
from mmengine.dataset import Compose
from numpy import random

from ..argument_checks import check_counts
from ..errors import InputError

FURTHER_IMAGES = 'further_images'
"""Key of a sample under which transforms find the :class:`FurtherImages`."""


class FurtherImages:
    """Where a transform draws other images of the same data set, loaded as its own was."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __deepcopy__(self, memo: object) -> FurtherImages:
        return self  # transforms copy samples, and none of them means the data set

    def draw(self, number: int) -> list[dict[str, Any]]:
        """Samples at random, with replacement, by NumPy's global generator."""
        return [self._dataset[int(index)] for index in random.randint(len(self._dataset), size=number)]


@DATASETS.register_module()
class MultiImageDataset:
    """A data set with a second pipeline, whose transforms may draw further images of it, as a mosaic does.

    Unlike with mmdet's ``MultiImageMixDataset`` a transform draws when it runs, also within others
    (``RandomChoice``, ``InStages``), and no image is loaded or copied that nothing asks for.

    With ``SeededBatchSampler`` the images drawn depend on the run's seed and the sample's place in the run alone.

    Args:
        dataset: config of the data set, or the data set; its pipeline loads an image with its boxes.
        pipeline: what comes after.
        max_refetch: how often another sample is taken where the pipeline gives None.

    Raises:
        InputError: there are fewer than two images; when one is read, it comes without boxes.
    """

    def __init__(self, *, dataset: Any, pipeline: Sequence[Any], max_refetch: int = 15) -> None:
        check_counts(max_refetch=max_refetch, least=0)
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
        self.pipeline = Compose(pipeline)
        self.max_refetch = max_refetch
        self.full_init()
        if len(self) < 2:
            raise InputError(
                f'{type(self).__name__} mixes several images, but its data set has {len(self)}; add images, or train '
                "on the data set itself, without transforms that mix images such as dict(type='QuarterMosaic')"
            )

    @property
    def metainfo(self) -> dict[str, Any]:
        """The data set's."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Read the annotations, unless that is done."""
        self.dataset.full_init()

    def get_data_info(self, index: int) -> dict[str, Any]:
        """The annotation of an image, as the data set gives it."""
        return self.dataset.get_data_info(index)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        for _ in range(self.max_refetch + 1):
            loaded = self.dataset[index]
            if 'img' not in loaded or 'gt_bboxes' not in loaded:
                raise InputError(
                    f'{type(self).__name__} takes images with boxes: let the pipeline of its data set end with '
                    "dict(type='LoadAnnotations', with_bbox=True), and what packs them end its own"
                )
            sample = self.pipeline({**loaded, FURTHER_IMAGES: FurtherImages(self.dataset)})
            if sample is not None:
                return sample
            index = int(random.randint(len(self)))
        raise InputError(f'the pipeline gave nothing for {self.max_refetch + 1} images on end; look at what drops them')

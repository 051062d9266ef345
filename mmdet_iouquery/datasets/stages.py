"""Transforms that run in some stages of a training only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine.dataset import Compose

from ..argument_checks import check_names


@TRANSFORMS.register_module()
class InStages(BaseTransform):
    """Run transforms while the training is in one of some stages, and pass the image on as it is otherwise.

    ``AugmentationTimetableHook`` says which stage that is. Before it has, as where a tool reads the data set without a
    training, no stage is entered.

    The answer lies in shared memory: workers that are kept for the whole run, forked or spawned, know the stage of the
    epoch that they load for.

    Args:
        stages: names of the hook's timetable.
        transforms: their configs.

    Raises:
        InputError: ``stages`` is no list of names.
    """

    def __init__(self, *, stages: Sequence[str], transforms: Sequence[Any]) -> None:
        check_names(stages=stages)
        self.stages = tuple(stages)
        self.transforms = Compose(transforms)
        self._entered = torch.zeros((), dtype=torch.bool).share_memory_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # on its way to a spawned worker a tensor stays shared; every other copy needs memory of its own to share
        self.__dict__.update(state)
        self._entered.share_memory_()

    def enter(self, stage: str) -> None:
        """Say which stage the training is in, to all processes that hold this transform."""
        self._entered.fill_(stage in self.stages)

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """What the transforms make of it in one of the stages; None where one of them gives that."""
        return self.transforms(results) if self._entered else results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(stages={self.stages}, transforms={self.transforms})'


def staged_transforms(dataset: Any) -> Iterator[InStages]:
    """Every :class:`InStages` in the pipelines of a data set and of what it wraps, nested ones too."""
    nodes = [dataset]
    while nodes:
        node = nodes.pop()
        if isinstance(node, InStages):
            yield node
        if isinstance(node, (list, tuple)):
            nodes.extend(node)
        else:
            names = ('pipeline', 'transforms', 'dataset', 'datasets')
            nodes.extend(getattr(node, name) for name in names if hasattr(node, name))


def enter_stage(dataset: Any, stage: str) -> None:
    """Tell every transform of a data set which stage the training is in."""
    for transform in staged_transforms(dataset):
        transform.enter(stage)

"""Images through a config's test pipeline, and results of the same class as an exported file's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from numpy.typing import NDArray

from iouquery_runtime.postprocess import Detections

from ...checkpoints.preprocessing import test_dataset
from ...config_options import type_name
from ...errors import InputError


class PipelineImage(NamedTuple):
    """An image as a detector takes it."""

    pixels: NDArray[Any]
    """(3, H, W), of the type that the pipeline gives."""
    width: int
    """Of the original, in px."""
    height: int
    meta: Mapping[str, Any]
    """Of the data sample."""


class TestPipeline:
    """The test pipeline of a config, behind what reads files and annotations. It is pickled.

    Args:
        cfg: with a test or validation set.
        name: what messages call it.

    Raises:
        InputError: there is none.
    """

    __test__ = False  # no test of pytest

    def __init__(self, cfg: Mapping[str, Any], name: object) -> None:
        dataset = test_dataset(cfg)
        if not dataset:
            raise InputError(f'{name} has neither a test_dataloader nor a val_dataloader with a pipeline; add one')
        self._scope = cfg.get('default_scope', 'mmdet')
        self._loader, *self._steps = [step for step in dataset['pipeline'] if not _reads_annotations(step)]
        self._built: list[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_built': None}

    def __call__(self, image: NDArray[Any], path: str | None) -> PipelineImage:
        """An image (H, W, 3) uint8, BGR, upright; ``path`` is that of its file, for the sample's meta information."""
        if self._built is None:
            init_default_scope(self._scope)
            self._built = [TRANSFORMS.build(step) for step in self._steps]
        size = image.shape[:2]
        results: dict[str, Any] = dict(img=image, img_path=path, img_id=0, img_shape=size, ori_shape=size)
        if self._loader.get('to_float32'):
            results['img'] = image.astype(np.float32)
        for step in self._built:
            results = step(results)
        return PipelineImage(results['inputs'].numpy(), size[1], size[0], results['data_samples'].metainfo)


@torch.inference_mode()
def detections(model: Any, images: Sequence[PipelineImage], score_thr: float | None) -> list[Detections]:
    """By mmdet's own prediction.

    Args:
        model: a detector in evaluation mode.
        images: of one batch.
        score_thr: scores are above it; None: whatever the model gives.
    """
    inputs = [torch.from_numpy(np.ascontiguousarray(image.pixels)) for image in images]
    samples = [DetDataSample(metainfo=image.meta) for image in images]
    predictions = [sample.pred_instances for sample in model.test_step(dict(inputs=inputs, data_samples=samples))]
    return [_detections(instances, score_thr) for instances in predictions]


def _detections(instances: Any, score_thr: float | None) -> Detections:
    boxes, scores, labels = (instances[key].float().cpu().numpy() for key in ('bboxes', 'scores', 'labels'))
    all_of_them = Detections(boxes, scores, labels.astype(np.int64))
    return all_of_them if score_thr is None else all_of_them.where(scores > score_thr)


def _reads_annotations(step: Mapping[str, Any]) -> bool:
    return type_name(step).endswith('LoadAnnotations')

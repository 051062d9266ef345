"""When the logs of a training begin, and the detections that they show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from numpy.typing import NDArray

from ...argument_checks import check_counts
from ...datasets.image_files import decode
from ..logs import TrainingLog

_LONGEST_NAME = 60  # letters of an image's name


@HOOKS.register_module()
class TrainingLogHook(Hook):
    """Begin the logs with the training, and give them sample detections at every validation.

    The samples are the same images each time, spread evenly over those that the first process validates: ground truth
    on the left, detections on the right, drawn by mmdet's visualizer.

    Args:
        logs: names of back ends in the ``visualizer``, each a :class:`~mmdet_iouquery.engine.logs.TrainingLog`.
        num_images: samples of a validation; 0: none.
        image_size: px of the longer side to which an image is resized.
        score_thr: detections must score above this to be drawn.
        ground_truth: whether the validation's data samples have it in px of the image as it came (``LoadAnnotations``
            after ``Resize``). Otherwise detections stand alone.
    """

    priority = 'HIGH'  # before MissedValidationHook, which may validate at once

    def __init__(
        self,
        logs: Sequence[str],
        num_images: int = 4,
        image_size: int = 480,
        score_thr: float = 0.3,
        ground_truth: bool = True,
    ) -> None:
        check_counts(image_size=image_size)
        self.names = list(logs)
        self.num_images, self.image_size, self.score_thr = num_images, image_size, score_thr
        self.ground_truth = ground_truth
        self._logs: list[TrainingLog] = []
        self._chosen: set[int] = set()
        self._seen = 0
        self._drawer: Any = None

    def before_train(self, runner: Runner) -> None:
        if runner.rank != 0:
            return
        self._logs = [runner.visualizer.get_backend(name) for name in self.names]
        for name, log in zip(self.names, self._logs):
            runner.logger.info(f'log {name}: {log.begin(Path(runner.work_dir), runner.iter)}')
        if runner.val_loop is not None:
            self._chosen = spread(self.num_images, len(runner.val_dataloader.sampler))

    def before_val_epoch(self, runner: Runner) -> None:
        self._seen = 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        for sample in (outputs or ()) if self._logs else ():
            if self._seen in self._chosen:
                stem = re.sub(r'[^\w.-]', '_', Path(sample.img_path).stem)[:_LONGEST_NAME]
                image = self._drawn(runner, sample)
                for log in self._logs:
                    log.add_image(f'detections/{self._seen}_{stem}', image, runner.iter)
            self._seen += 1

    def after_train(self, runner: Runner) -> None:
        self._logs = []

    def _drawn(self, runner: Runner, sample: Any) -> NDArray[Any]:
        """Ground truth and detections of an image side by side, (H, W, 3) uint8, RGB."""
        height, width = sample.ori_shape[:2]
        image = decode(get(sample.img_path), (width, height))[..., ::-1]
        scale = self.image_size / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        resized = DetDataSample()
        resized.pred_instances = _resized(sample.pred_instances, scale, size)
        if self.ground_truth:
            resized.gt_instances = _resized(sample.gt_instances, scale, size)
        if self._drawer is None:
            from mmdet.visualization import DetLocalVisualizer  # and with it matplotlib

            self._drawer = DetLocalVisualizer(name='sample detections')  # one of its own, which writes nothing
            self._drawer.dataset_meta = runner.val_dataloader.dataset.metainfo
        self._drawer.add_datasample(
            'sample',
            mmcv.imresize(np.ascontiguousarray(image), size),
            resized,
            draw_gt=self.ground_truth,
            pred_score_thr=self.score_thr,
        )
        return self._drawer.get_image()


def spread(count: int, total: int) -> set[int]:
    """``count`` numbers below ``total``, evenly spread from the first to the last; all where there are no more."""
    if count >= total:
        return set(range(total))
    return {round(i * (total - 1) / max(1, count - 1)) for i in range(count)}


def _resized(instances: Any, scale: float, size: tuple[int, int]) -> InstanceData:
    """Boxes, labels and scores alone, on the CPU; boxes lie on an image of ``size`` (width, height) px."""
    bboxes = get_box_tensor(instances.bboxes).detach().float().cpu() * scale
    last = bboxes.new_tensor([*size, *size]) - 1  # the visualizer warns of what lies beyond
    resized = InstanceData(bboxes=bboxes.clamp(min=0).minimum(last))
    for name in ('labels', 'scores'):
        if name in instances:
            resized.set_field(instances.get(name).detach().cpu(), name)
    return resized

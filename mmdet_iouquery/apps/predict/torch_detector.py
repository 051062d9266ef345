"""A config and a checkpoint as the detector of a job: its test pipeline, and mmdet's own prediction."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from iouquery_runtime import InputError as RuntimeInputError
from iouquery_runtime import Result
from iouquery_runtime.files import sha256
from iouquery_runtime.jobs.worker import Detect, Prepared

from ...checkpoints.class_names import trained_class_names
from ...checkpoints.files import checkpoint_file
from ...checkpoints.preprocessing import test_dataset
from ...datasets.image_files import ImageError, decode
from ...deploy.prepare import prepare_for_inference
from ...engine.detector import load_detector
from ...errors import InputError
from ...models.dense_heads import RTDETRHead
from .test_pipeline import PipelineImage, TestPipeline, detections


class TorchOpener:
    """:class:`~iouquery_runtime.jobs.worker.Opener` of a detector of mmdet's.

    An image is taken upright, as its EXIF data say; the test tool takes it as it is stored where the annotation has
    that size.

    Args:
        cfg: with the model, and a test or validation set whose pipeline images take.
        checkpoint: its weights.
        score_thr: detections score above it; None: what the config says.
        threads: of each worker.
        gpu: predict on CUDA; False: on the CPU.
        dtype: the weights are cast to it: 'float32', 'float16' or 'bfloat16'.
        prepare: predict with what :func:`~mmdet_iouquery.deploy.prepare.prepare_for_inference` makes of it.

    Raises:
        InputError: the config lacks a pipeline or names for the classes; the checkpoint is missing or does not fit; the
            detector gives no boxes.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str | Path,
        *,
        score_thr: float | None = None,
        threads: int = 1,
        gpu: bool = False,
        dtype: str = 'float32',
        prepare: bool = False,
    ) -> None:
        path = checkpoint_file(checkpoint)
        self._pipeline = TestPipeline(cfg, cfg.filename)
        dataset = test_dataset(cfg)
        self.names = trained_class_names(dataset, path)
        if not self.names:
            raise InputError(
                f"neither {checkpoint} nor {cfg.filename} names the classes; give the config's test_dataloader a "
                'metainfo=dict(classes=(...))'
            )
        if score_thr is not None and not 0 <= score_thr < 1:
            raise InputError(f'--score-thr must lie in [0, 1), got {score_thr}')
        self._cfg = Config(dict(model=cfg.model, default_scope=cfg.get('default_scope', 'mmdet')))
        self._checkpoint, self._score_thr, self._threads = str(path.absolute()), score_thr, threads
        self._gpu, self._dtype, self._prepare = gpu, dtype, prepare
        text = repr([self._cfg.to_dict(), dataset['pipeline']])
        self.settings = dict(
            model=path.name,
            sha256=sha256(path),
            config=hashlib.sha256(text.encode()).hexdigest(),
            score_thr=score_thr,
            dtype=dtype,
            prepare=prepare,
        )
        self._try_out()

    def prepare(self, data: bytes, name: str) -> Prepared:
        """The bytes of a file through the test pipeline; pixels (3, H, W), and the sample's meta information."""
        try:
            image = decode(data)
        except ImageError as error:
            raise RuntimeInputError(f'{name}: {error}; repair the file, or leave it out') from error
        return Prepared(*self._pipeline(image, name))

    def open(self) -> Detect:
        """See :class:`~iouquery_runtime.jobs.worker.Opener`."""
        torch.set_num_threads(self._threads)
        try:
            model = self._model()
        except InputError as error:  # told by its class in the process that started the workers
            raise RuntimeInputError(str(error)) from error

        def detect(images: Sequence[Prepared]) -> list[Result]:
            predictions = detections(model, [PipelineImage(*image) for image in images], self._score_thr)
            return [
                Result.of(prediction, self.names, (image.width, image.height))
                for prediction, image in zip(predictions, images)
            ]

        return detect

    def _model(self) -> Any:
        cfg = self._cfg.copy()
        model: nn.Module = load_detector(cfg, self._checkpoint)
        if self._score_thr is not None and isinstance(getattr(model, 'bbox_head', None), RTDETRHead):
            cfg.model.test_cfg = {**(cfg.model.get('test_cfg') or {}), 'score_thr': self._score_thr}
            model = load_detector(cfg, self._checkpoint)
        dtype = getattr(torch, self._dtype)
        model = prepare_for_inference(model, dtype) if self._prepare else model.to(dtype)
        return model.to('cuda') if self._gpu else model

    def _try_out(self) -> None:
        """On a grey image, on the CPU: what is wrong is found before there are workers."""
        gpu, self._gpu = self._gpu, False
        from PIL import Image

        try:
            content = io.BytesIO()
            Image.new('RGB', (64, 48), 'grey').save(content, 'PNG')
            detect = self.open()
            try:
                detect([self.prepare(content.getvalue(), 'a grey image')])
            except (AttributeError, KeyError) as error:
                raise InputError(
                    f'the model of {self._checkpoint} gives no boxes with scores and labels ({error}); take a detector'
                ) from error
        finally:
            self._gpu = gpu

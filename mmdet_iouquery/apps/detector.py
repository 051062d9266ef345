"""A detector in a few lines of Python: ``mmdet_iouquery.Detector``.

Around mmengine's config and runner, and the functions of the command lines: nothing is done here that they do not do.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from iouquery_runtime import InputError as RuntimeInputError
from iouquery_runtime import Result
from iouquery_runtime.detector import ON_ERROR
from iouquery_runtime.preprocess import Source, read_image

from ..checkpoints import hub
from ..checkpoints.class_names import named_classes, trained_class_names
from ..checkpoints.files import checkpoint_file
from ..datasets.image_files import ImageError, decode
from ..deploy import prepare_for_inference
from ..engine import launch
from ..engine.detector import load_detector, read_config
from ..engine.resume import latest_checkpoint
from ..engine.trained_files import model_files
from ..engine.work_dir import checkpoint_folder, unchanged_unless_started
from ..errors import InputError
from ..file_io import write_text
from .analyze.command import PAGE_NAME, analyze
from .data.conversion import read_data
from .export.command import export
from .predict.test_pipeline import PipelineImage, TestPipeline, detections
from .train.arguments import NONE
from .train.fit import Wishes, fitted
from .train.request import WRITTEN, TrainRequest, default_folder, written_config

Callback = Callable[[Runner], None]
Model = Union[str, 'os.PathLike[str]', Config]
BASE = 'base_config.py'
"""Written where a detector's config is not that of a file any more."""


class Detector:
    """A config with weights: called, it detects; it is trained, tested, exported and analysed.

    ::

        detector = Detector('rtdetr_r18vd', weights='rtdetr_r18vd.pth')
        result = detector('street.jpg', score_thr=0.4)
        result.boxes, result.scores, result.labels, result.names

    Args:
        model: the name of a shipped config, such as ``rtdetr_r18vd``; a config file; a config; the work folder of a
            training, or a folder of :func:`~mmdet_iouquery.save_pretrained`.
        weights: of the config; None: those of the folder, or none yet; 'none': none, and training begins with random
            ones, the backbone's too.
        device: that it detects on; None: CUDA where there is one, otherwise the CPU.
        cfg_options: overrides of the config, as of ``--cfg-options``.
        prepare: detect with what :func:`~mmdet_iouquery.prepare_for_inference` makes of the model, in less time.

    Raises:
        InputError: there is no such config, folder or checkpoint, or they do not fit each other.
    """

    def __init__(
        self,
        model: Model,
        weights: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        cfg_options: Mapping[str, Any] | None = None,
        prepare: bool = False,
    ) -> None:
        self.device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        self.weights = None if weights in (None, NONE) else Path(weights)
        if isinstance(model, Config):
            self.config = copy.deepcopy(model)
            self.config.merge_from_dict(dict(cfg_options or {}))
        elif Path(model).is_dir():
            config, checkpoint = model_files([str(model)])
            self.config = read_config(config, dict(cfg_options or {}))
            self.weights = self.weights or Path(checkpoint)
        else:
            self.config = read_config(str(model), dict(cfg_options or {}))
        if self.weights is not None:
            checkpoint_file(self.weights)
        self._begin_with = self.config, weights if weights == NONE else self.weights
        self._model: nn.Module | None = None
        self._prepare = prepare

    @property
    def model(self) -> nn.Module:
        """mmdet's model with the weights, in evaluation mode; with ``prepare`` what detects, which cannot be trained.

        Raises:
            InputError: there are no weights yet; they do not fit.
        """
        if self._model is None:
            if self.weights is None:
                raise InputError(
                    f'{self!r} has no weights, so what it detected would be noise; give weights=FILE, or call train()'
                )
            model = load_detector(self.config, self.weights).to(self.device)
            self._model = prepare_for_inference(model) if self._prepare else model
        return self._model

    @property
    def names(self) -> tuple[str, ...]:
        """The classes', by label."""
        named = () if self.weights is None else trained_class_names(self.config, self.weights)
        return named or named_classes(None, self.config)['classes']

    def __call__(
        self,
        images: Source | Iterable[Source],
        score_thr: float | None = None,
        batch_size: int = 1,
        bgr: bool = False,
        on_error: str = 'raise',
    ) -> Result | list[Result]:
        """Detect objects.

        Args:
            images: one, or several: paths, contents of files (bytes), PIL images, arrays (H, W, 3) of uint8, in RGB.
            score_thr: detections score above it; None: whatever the config says.
            batch_size: images that go through the model at once.
            bgr: arrays are in BGR, as OpenCV reads them.
            on_error: what an image leads to that cannot be read: 'raise', or 'skip': a result with ``error``.

        Returns:
            The result of one image, or a list in the order of several.

        Raises:
            InputError: an image cannot be read and ``on_error`` is 'raise'; an argument is out of range.
        """
        if on_error not in ON_ERROR:
            raise InputError(f'on_error must be one of {list(ON_ERROR)}, got {on_error!r}')
        if score_thr is not None and not 0 <= score_thr < 1:
            raise InputError(f'score_thr must lie in [0, 1), got {score_thr!r}')
        if batch_size < 1:
            raise InputError(f'batch_size must be at least 1, got {batch_size!r}')
        is_one = isinstance(images, (str, os.PathLike, bytes, Image.Image, np.ndarray))
        sources: list[Source] = [images] if is_one else [*images]  # type: ignore[misc]
        pipeline, names = TestPipeline(self.config, self), self.names
        results: list[Any] = []
        batch: list[tuple[int, PipelineImage, dict[str, Any]]] = []

        def run() -> None:
            predictions = detections(self.model, [image for _, image, _ in batch], score_thr) if batch else []
            for prediction, (index, image, known) in zip(predictions, batch):
                results[index] = Result.of(prediction, names, (image.width, image.height), **known)
            batch.clear()

        for i, source in enumerate(sources):
            path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
            known = dict(path=path, source=source, bgr=bgr)
            results.append(None)
            try:
                batch.append((i, _prepared(pipeline, source, f'images[{i}]', bgr), known))
            except RuntimeInputError as error:
                if on_error == 'raise':
                    raise InputError(str(error)) from error
                results[i] = Result.failed(str(error), **known)
            if len(batch) == batch_size:
                run()
        run()
        return results[0] if is_one else results

    def train(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        epochs: int | None = None,
        size: int | None = None,
        batch: int | None = None,
        work_dir: str | os.PathLike[str] | None = None,
        resume: bool | str = False,
        restart: bool = False,
        cfg_options: Mapping[str, Any] | None = None,
        hooks: Sequence[Hook] = (),
        callbacks: Sequence[Callback] = (),
    ) -> Path:
        """Train, or go on with the training of the same arguments, and detect with what was trained from then on.

        As ``iouquery train``, on one device. It begins with the config and the weights that the detector was made with,
        so that the same call goes on where it was stopped; a detector made with what was trained goes on from there.

        Args:
            data: a folder or file of images and boxes; None: the config's own.
            epochs: None: the config's.
            size: side that images are resized to, in px; None: the config's.
            batch: images a step; None: 8 where ``data`` is given, otherwise the config's.
            work_dir: where checkpoints and logs go; None: ``work_dirs/CONFIG_DATA``.
            resume: go on, whatever the settings: True, or a checkpoint.
            restart: start anew; what is there is set aside.
            cfg_options: overrides of the config.
            hooks: of mmengine's.
            callbacks: functions of the runner, called after each validation.

        Returns:
            The newest checkpoint.

        Raises:
            InputError: data, weights or arguments are unfit, said before work starts.
            RunError: the training could not go on.
            TrainingStopped: a signal stopped it; the same call goes on.
        """
        begin, weights = self._begin_with
        request = TrainRequest(
            data=None if data is None else Path(data),
            weights=None if weights is None else str(weights),
            epochs=epochs,
            size=size,
            batch=batch,
            options=cfg_options or {},
            restart=restart,
        )
        folder = Path(work_dir or default_folder(begin.filename or 'config.py', request.data)).expanduser()
        more = _arguments(dict(restart=restart, resume=resume))
        with unchanged_unless_started(folder, [*WRITTEN, BASE]):
            config, summary = written_config(_config_file(begin, folder), request._replace(work_dir=folder))
            arguments = [str(config), '--work-dir', str(config.parent), *more]
            launch.train(arguments, [*hooks, *map(_AfterValidation, callbacks)], summary)
        self.config = read_config(str(config))
        self.weights, self._model = latest_checkpoint(config.parent, checkpoint_folder(self.config)), None
        return Path(self._trained('go on with'))

    def test(self, data: str | os.PathLike[str] | None = None, *, out: str | None = None) -> dict[str, float]:
        """COCO's numbers by the config's metrics, as of ``iouquery test``.

        Args:
            data: a folder or file of images and boxes, of which those for validation count; None: the config's own.
            out: also write OUT.bbox.json and OUT.metrics.json.

        Raises:
            InputError: there are no weights, or they, the data and the config do not fit each other.
        """
        weights = self._trained('test')
        with tempfile.TemporaryDirectory() as name:
            folder, config = Path(name), self.config
            if data is not None:
                config = fitted(config, Wishes(read_data(data)))
            write_text(folder / BASE, config.pretty_text)
            return launch.test([str(folder / BASE), weights, '--work-dir', name, *_arguments(dict(out=out))])

    def export(self, path: str | os.PathLike[str], **settings: Any) -> Path:
        """Write one self-describing file for other runtimes, as ``iouquery export`` does.

        Args:
            path: ``.onnx``, or ``.xml`` for OpenVINO.
            settings: options of that tool with underscores: ``size=(480, 640)``, ``dynamic_size=True``.

        Raises:
            InputError: there are no weights; something does not fit.
            SystemExit: an option that the tool does not have.
            ParityError: the file would compute something else than the model.
        """
        with tempfile.TemporaryDirectory() as folder:
            config = _config_file(self.config, Path(folder))
            export([config, self._trained('export'), '-o', str(path), *_arguments(settings)])
        return Path(path)

    def analyze(self, out: str | os.PathLike[str], **settings: Any) -> Path:
        """Write a page about the queries, as ``iouquery analyze`` does.

        Args:
            out: its folder.
            settings: options of that tool with underscores: ``images=50``, ``pictures=4``.

        Returns:
            The page.

        Raises:
            InputError: there are no weights; something does not fit.
            SystemExit: an option that the tool does not have.
        """
        with tempfile.TemporaryDirectory() as folder:
            config = _config_file(self.config, Path(folder))
            analyze([config, self._trained('look at'), '--out', str(out), *_arguments(settings)])
        return Path(out) / PAGE_NAME

    def save_pretrained(self, folder: str | os.PathLike[str], *, license: str, **options: Any) -> bool:
        """Write a folder to share, which this class opens again; see :func:`~mmdet_iouquery.save_pretrained`."""
        return hub.save_pretrained(self._trained('save'), Path(folder), license=license, config=self.config, **options)

    def _trained(self, for_what: str) -> str:
        if self.weights is None:
            raise InputError(f'{self!r} has no weights to {for_what}; give weights=FILE, or call train()')
        return str(self.weights)

    def __repr__(self) -> str:
        return f'Detector({self.config.filename or "a config"!r}, weights={self.weights and str(self.weights)!r})'


class _AfterValidation(Hook):
    """Calls a function of the runner after each validation."""

    priority = 'LOWEST'  # after what evaluates and writes

    def __init__(self, callback: Callback) -> None:
        self._callback = callback

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._callback(runner)


def _config_file(config: Config, folder: Path) -> str:
    """A config's own file, or one in ``folder`` of what it is by now, overrides included."""
    name = config.filename
    if name and Path(name).is_file() and Config.fromfile(name).to_dict() == config.to_dict():
        return str(name)
    write_text(folder / BASE, config.pretty_text)
    return str(folder / BASE)


def _arguments(settings: Mapping[str, Any]) -> list[str]:
    """Options of a command line from arguments of a function."""
    arguments: list[str] = []
    for name, value in settings.items():
        if value is not None and value is not False:
            values = [] if value is True else [*value] if isinstance(value, (list, tuple)) else [value]
            arguments += [f'--{name.replace("_", "-")}', *map(str, values)]
    return arguments


def _prepared(pipeline: TestPipeline, source: Source, name: str, bgr: bool) -> PipelineImage:
    """Files are decoded as for training and testing.

    Raises:
        RuntimeInputError: it cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            source, name = path.read_bytes(), str(path)
        except OSError as error:
            raise RuntimeInputError(
                f'{path} cannot be read: {error.strerror or error}; correct the path, or leave it out'
            ) from error
    if isinstance(source, bytes):
        try:
            return pipeline(decode(source), name)
        except ImageError as error:
            raise RuntimeInputError(f'{name}: {error}; repair the file, or leave it out') from error
    return pipeline(np.ascontiguousarray(read_image(source, name, bgr)[..., ::-1]), None)

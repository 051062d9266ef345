"""An exported file in the place of a detector, for mmengine's runner to test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from iouquery_runtime import Detector
from iouquery_runtime import InputError as RuntimeInputError

from ..checkpoints.model_values import predicting_values
from ..errors import InputError
from .model_source import resize_of

_NAMED = 3
"""Values of a model that a note lists."""
_OF_DETECTIONS = ('score_thr', 'overlap_thr', 'calibration', 'max_per_img')
"""Of ``test_cfg``, each with a sentence of its own."""


def differences(detector: Detector, cfg: Mapping[str, Any]) -> str:
    """Where a config says something else than a file does of images, detections and its own name, and which one holds.

    Args:
        detector: the file, in whose place the config's model is.
        cfg: whole, of a detector of its own.
    """
    metadata, sentences = detector.metadata, []
    if (resize := resize_of(cfg)) is not None:
        (height, width), how = resize
        own = f'{height}x{width} {how["interpolation"]}{_antialiased(how["antialias"])}'
        height, width = detector.image_size
        theirs = f'{height}x{width} {metadata.resize.interpolation}{_antialiased(metadata.resize.antialias)}'
        if own != theirs:
            sentences.append(f'images are resized to {own}, as the config says, and not to {theirs}, as the file does')
    test_cfg = (cfg.get('model') or {}).get('test_cfg') or {}
    for name in _OF_DETECTIONS:
        own, theirs = (json.loads(json.dumps(value or None)) for value in (test_cfg.get(name), getattr(metadata, name)))
        if own != theirs and not (name == 'max_per_img' and own is None):  # each detector has its own number
            other = _shown(own) if _shown(own) != _shown(theirs) else 'another'
            sentences.append(f'{name} is {_shown(theirs)}, as the file says, and not {other}, as the config does')
    exported_with, name = metadata.values.get('config'), Path(getattr(cfg, 'filename', None) or '').name
    if 'model' in metadata.values:
        sentences += _other_values(json.loads(metadata.values['model']), predicting_values(cfg))
    elif exported_with and name and exported_with != name:
        sentences.append(f'the model is that of {exported_with}, as the file says, and not that of {name}')
    return '; '.join(sentences)


def _other_values(theirs: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Of a file's model and a config's, the first values that differ."""
    prefixes = tuple(f'test_cfg.{name}' for name in _OF_DETECTIONS)
    keys = [key for key in {**theirs, **own} if theirs.get(key) != own.get(key) and not key.startswith(prefixes)]
    sentences = [
        f'model.{key} is {theirs.get(key)}, as the file says, and not {own.get(key)}, as the config does'
        for key in keys[:_NAMED]
    ]
    return [*sentences, f'{len(keys) - _NAMED} more of the model'] if len(keys) > _NAMED else sentences


def _antialiased(antialias: bool) -> str:
    return ' (antialiased)' if antialias else ''


def _shown(value: Any) -> str:
    return f'a table of {len(value["scores"])} points' if isinstance(value, dict) else str(value)


@MODELS.register_module()
class ExportedDetector(BaseModel):
    """Runs an exported file on the images of a data loader, by ``iouquery_runtime``.

    The loader's pipeline resizes the images; the file normalises them. Thresholds and calibration are those in the
    file.

    Args:
        path: an ``.onnx`` or an ``.xml`` file.
        rgb: images come in RGB; False: in BGR, as mmdet's loader gives them.
        precision: of the runtime, see :class:`iouquery_runtime.Detector`.
        threads: of the runtime; None: as many as there are cores.

    Raises:
        InputError: the file is missing, damaged, or of another maker.
    """

    def __init__(
        self, *, path: str, rgb: bool = False, precision: str | None = None, threads: int | None = None
    ) -> None:
        super().__init__()
        self.rgb = rgb
        try:
            self.detector = Detector(path, threads=threads, precision=precision)
        except RuntimeInputError as error:
            raise InputError(str(error)) from error

    def forward(self, inputs: Sequence[Tensor], data_samples: SampleList, mode: str = 'predict') -> SampleList:
        """The samples with ``pred_instances``, in px of the original images.

        Args:
            inputs: (3, H, W) uint8 each, of one size.
            data_samples: with ``ori_shape``.
            mode: 'predict'.

        Raises:
            InputError: images are of another size than the file takes, or another mode.
        """
        if mode != 'predict':
            raise InputError(f'an exported file predicts, and cannot do {mode!r}; do that with its checkpoint')
        images = [image.permute(1, 2, 0).cpu().numpy() for image in inputs]
        self._check_sizes(images)
        images = [np.ascontiguousarray(image if self.rgb else image[..., ::-1]) for image in images]
        sizes = [(sample.ori_shape[1], sample.ori_shape[0]) for sample in data_samples]
        batch = self.detector.batch_size or len(images)
        for first in range(0, len(images), batch):
            results = self.detector.detect_resized(images[first : first + batch], sizes[first : first + batch])
            for sample, result in zip(data_samples[first : first + batch], results):
                sample.pred_instances = InstanceData(
                    bboxes=from_numpy(np.array(result.boxes)),
                    scores=from_numpy(np.array(result.scores)),
                    labels=from_numpy(np.array(result.labels)),
                )
        return data_samples

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise :class:`InputError` unless a data set numbers the file's classes as the file does."""
        if tuple(classes) != self.detector.names:
            raise InputError(
                f'{self.detector.path} has the classes {", ".join(self.detector.names[:5])} ... '
                f'({len(self.detector.names)}) and the data set {", ".join([*classes][:5])} ... ({len(classes)}); '
                f'name the config that the file was exported with{self._config()}, or one with its classes in the same '
                'order'
            )

    def _check_sizes(self, images: Sequence[NDArray[Any]]) -> None:
        wanted = self.detector.metadata.image_size
        sizes: set[Any] = {image.shape[:2] for image in images}
        if len(sizes) > 1 or (wanted and sizes != {wanted}):
            given = ' and '.join(f'{height}x{width}' for height, width in sorted(sizes))
            takes = f'{wanted[0]}x{wanted[1]}' if wanted else 'one size a batch'
            other = ', or export by `iouquery export --dynamic-size`' if wanted else ''
            raise InputError(
                f'the test pipeline gives images of {given} (height x width) and {self.detector.path} takes {takes}: '
                f"name the config that it was exported with{self._config()}, or set the Resize step's scale{other}"
            )

    def _config(self) -> str:
        """What the file says of it, in brackets."""
        config = self.detector.metadata.values.get('config')
        return f' ({config})' if config else ''

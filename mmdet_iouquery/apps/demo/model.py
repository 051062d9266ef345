"""A model that looks at one image at a time: from a config and a checkpoint, or an exported file."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Union

import cv2
import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from numpy.typing import NDArray
from PIL import Image

from iouquery_runtime import Detector
from iouquery_runtime import InputError as RuntimeInputError

from ...checkpoints.class_names import trained_class_names
from ...choices import is_exported
from ...config_options import type_name
from ...datasets.image_files import ImageError, decode
from ...engine.detector import load_detector, read_config
from ...errors import InputError
from ..analyze.trace import QueryTrace, ScoredBoxes, parts_of, trace
from .catalogue import ListedModel
from .overlay import RESULT, stages

ImageSource = Union[str, 'os.PathLike[str]', Image.Image]
"""The path of a file, or an image."""
_LOOKING = Lock()


class Look(NamedTuple):
    """An image, and what a model finds in it."""

    image: Image.Image
    """As the model's own way of loading gives it, RGB; boxes are in its px."""
    stages: Mapping[str, ScoredBoxes]
    """What can be shown, first to last: the encoder's predictions and each decoder layer's, or the result alone."""
    trace: QueryTrace | None
    """What the queries went through; None: the model doesn't tell."""
    classes: tuple[str, ...]
    """Names by label; empty where nobody knows them."""


def open_model(files: ListedModel) -> DemoModel | ExportedModel:
    """Load a model.

    Raises:
        InputError: see :class:`DemoModel` and :class:`ExportedModel`.
    """
    if is_exported(files.checkpoint):
        return ExportedModel(files.checkpoint)
    assert files.config is not None
    return DemoModel(files.config, files.checkpoint)


class _Model(ABC):
    """Looks at one image at a time; calls of other threads wait, of whatever model.

    Attributes:
        classes: names by label; empty where nobody knows them.
    """

    classes: tuple[str, ...]
    _last: tuple[Any, Look] | None = None

    def look(self, source: ImageSource, size: tuple[int, int] | None = None) -> Look:
        """Run the model on an image, unless it is the last file and unchanged.

        Args:
            source: the image.
            size: width and height in px that its annotations name; None: those of the image held upright.

        Raises:
            InputError: the file can't be read as an image, or the model can't be run on it.
        """
        with _LOOKING:
            if isinstance(source, Image.Image):
                return self._run(source.convert('RGB'), None)
            try:
                image = str(source), os.stat(source).st_mtime_ns, size
            except OSError as error:
                raise InputError(f'{Path(source).name} is gone ({error.strerror}); choose it again') from error
            if self._last is None or self._last[0] != image:
                self._last = image, self._run(Path(source), size)
            return self._last[1]

    @abstractmethod
    def _run(self, source: Path | Image.Image, size: tuple[int, int] | None) -> Look: ...


class DemoModel(_Model):
    """A model with its weights, and the images' way into it.

    Args:
        config: a config file with a test or validation set, whose pipeline the images take.
        checkpoint: its weights.

    Raises:
        InputError: the model has no queries, the checkpoint doesn't fit it, or the config lacks a pipeline or a base.
    """

    def __init__(self, config: str | Path, checkpoint: str | Path) -> None:
        cfg = read_config(str(config))
        detector = load_detector(cfg, checkpoint)
        parts_of(detector)
        self._detector = detector.to('cuda' if torch.cuda.is_available() else 'cpu')
        dataset = _test_set(cfg)
        self._pipeline = [TRANSFORMS.build(step) for step in dataset['pipeline'] if not _reads_annotations(step)]
        self.classes = trained_class_names(cfg, checkpoint)

    def _run(self, source: Path | Image.Image, size: tuple[int, int] | None) -> Look:
        load, *others = self._pipeline
        data = self._of_array(source) if isinstance(source, Image.Image) else _of_file(load, source, size)
        image = Image.fromarray(np.ascontiguousarray(data['img'][..., ::-1], dtype=np.uint8))
        for transform in others:
            data = transform(data)
        of_queries = trace(self._detector, data)
        return Look(image, stages(of_queries), of_queries, self.classes)

    def _of_array(self, image: Image.Image) -> dict[str, Any]:
        """As the pipeline's loader gives it."""
        pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])
        if getattr(self._pipeline[0], 'to_float32', False):
            pixels = pixels.astype(np.float32)
        return dict(img=pixels, img_path='', img_id=0, img_shape=pixels.shape[:2], ori_shape=pixels.shape[:2])


class ExportedModel(_Model):
    """An exported file. The score threshold in it counts for nothing: the page has its own.

    Args:
        path: an ``.onnx`` or ``.xml`` file.

    Raises:
        InputError: the file is missing, damaged or of another maker, or what runs it is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self._detector = Detector(path)
        except RuntimeInputError as error:
            raise InputError(str(error)) from error
        self.classes = self._detector.names

    def _run(self, source: Path | Image.Image, size: tuple[int, int] | None) -> Look:
        pixels = np.asarray(source) if isinstance(source, Image.Image) else _decoded(source, size)
        try:
            result = self._detector(pixels, score_thr=0.0)
        except RuntimeInputError as error:
            raise InputError(str(error)) from error
        class_scores = np.zeros((len(result), len(self.classes)))
        class_scores[np.arange(len(result)), result.labels] = result.scores  # of other classes it doesn't tell
        boxes = ScoredBoxes(result.boxes.astype(float), class_scores)
        return Look(Image.fromarray(np.ascontiguousarray(pixels)), {RESULT: boxes}, None, self.classes)


class Shelf:
    """Models by name; those used last stay in memory.

    Args:
        catalogue: gives the models that there are, the default first.
    """

    def __init__(self, catalogue: Callable[[], Sequence[ListedModel]]) -> None:
        self._catalogue = catalogue
        self._known: dict[str, ListedModel] = {}
        self._open = lru_cache(maxsize=3)(lambda files, _written: open_model(files))

    def names(self) -> list[str]:
        """Those of all models that there are now."""
        files = {files.name: files for files in self._catalogue()}
        self._known.update(files)
        return [*files]

    def config(self, name: str) -> Path | None:
        """The config of a model; None: it has none, or there is no such model."""
        return self._known[name].config if name in self._known else None

    def model(self, name: str) -> DemoModel | ExportedModel:
        """A model, read anew where its file has changed.

        Raises:
            InputError: there is none of that name, or see :func:`open_model`.
        """
        if name not in self._known and name not in self.names():
            raise InputError(f'there is no model {name!r}; name one of these: {", ".join(self._known) or "none"}')
        files = self._known[name]
        try:
            written = files.checkpoint.stat().st_mtime_ns
        except OSError as error:
            raise InputError(f'{name} is gone: {error.strerror}; load the page again') from error
        return self._open(files, written)


def _of_file(load: Any, path: Path, size: tuple[int, int] | None) -> dict[str, Any]:
    annotated = {} if size is None else {'width': size[0], 'height': size[1]}
    try:
        return load({'img_path': str(path), 'img_id': 0, **annotated})
    except (AssertionError, OSError, cv2.error, InputError) as error:  # what decoders and loaders make of others
        why = error.__cause__ if isinstance(error.__cause__, ImageError) else None
        raise _no_image(path, why) from error


def _decoded(path: Path, size: tuple[int, int] | None) -> NDArray[Any]:
    """(H, W, 3) uint8, RGB."""
    try:
        return decode(path.read_bytes(), size)[..., ::-1]
    except ImageError as error:
        raise _no_image(path, error) from error


def _no_image(path: Path, why: ImageError | None) -> InputError:
    reason = '' if why is None else f' ({why})'
    return InputError(f'{path.name} is no image that can be read{reason}; take a JPEG or PNG file')


def _test_set(cfg: Config) -> Mapping[str, Any]:
    for split in ('test', 'val'):
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset', {})
        if dataset.get('pipeline'):
            return dataset
    raise InputError(
        f'{cfg.filename} has neither a test_dataloader nor a val_dataloader with a pipeline for images; add one'
    )


def _reads_annotations(transform: Mapping[str, Any]) -> bool:
    return type_name(transform).endswith('LoadAnnotations')

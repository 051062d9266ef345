"""A detector from a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import postprocess
from .backends import open_file
from .errors import InputError
from .preprocess import Source, network_inputs, read_image, resized
from .results import Result

ON_ERROR = ('raise', 'skip')


class Detector:
    """Runs a file that ``iouquery export`` of mmdet-iouquery has written.

    ::

        detector = Detector('model.onnx')
        results = detector(['a.jpg', array, pil_image], score_thr=0.3)
        results[0].boxes, results[0].scores, results[0].labels, results[0].names

    It may be called by several threads at the same time, and is pickled by the file's path.

    Args:
        path: an ``.onnx`` file, run by onnxruntime, or an ``.xml`` file, run by OpenVINO.
        threads: that one call uses, no more than there are cores; None: as many.
        providers: onnxruntime's execution providers, or OpenVINO's devices, in order of preference; None: CUDA where
            onnxruntime has it, otherwise the CPU.
        precision: 'bfloat16': have OpenVINO compute in it; None: in the precision of the file.
        image_size: height and width in px that images are resized to, multiples of 32, for a file of any size; None:
            that of the test pipeline.

    Raises:
        InputError: the file is missing, damaged, of another maker or a newer format; what runs it is not installed;
            it does not take images of that size.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int | None = None,
        providers: Sequence[Any] | None = None,
        *,
        precision: str | None = None,
        image_size: Sequence[int] | None = None,
    ) -> None:
        if threads is not None:
            _check_count('threads', threads)
        if image_size is not None:
            image_size = _checked_size(image_size)
        self._arguments = os.path.abspath(path), threads, providers, precision, image_size
        self.path = Path(path)
        self._backend = open_file(self.path, threads, providers, precision)
        self.metadata = self._backend.metadata
        self._image_size = image_size or self.metadata.image_size or self.metadata.default_image_size
        self.metadata.check_size(self._image_size, str(path))

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, by label."""
        return self.metadata.names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in px that images are resized to."""
        return self._image_size

    @property
    def batch_size(self) -> int | None:
        """Images that the graph takes at once; None: any number."""
        return self._backend.batch_size

    @overload
    def __call__(
        self,
        images: Source,
        score_thr: float | Sequence[float] | None = None,
        batch_size: int = 1,
        bgr: bool = False,
        on_error: str = 'raise',
    ) -> Result: ...

    @overload
    def __call__(
        self,
        images: Iterable[Source],
        score_thr: float | Sequence[float] | None = None,
        batch_size: int = 1,
        bgr: bool = False,
        on_error: str = 'raise',
    ) -> list[Result]: ...

    def __call__(
        self,
        images: Source | Iterable[Source],
        score_thr: float | Sequence[float] | None = None,
        batch_size: int = 1,
        bgr: bool = False,
        on_error: str = 'raise',
    ) -> Result | list[Result]:
        """Detect objects.

        Args:
            images: one, or several: paths, contents of files (bytes), PIL images, arrays (H, W, 3) of uint8, in RGB.
                EXIF orientation is applied to files and to PIL images.
            score_thr: detections must score above this, before calibration: one number in [0, 1), or one for each
                class; None: what the file says.
            batch_size: images that go through the graph at once. A graph of a fixed number is filled up.
            bgr: arrays are in BGR, as OpenCV reads them.
            on_error: what an image leads to that cannot be read: 'raise', or 'skip': a result with ``error``.

        Returns:
            The result of one image, or a list in the order of several.

        Raises:
            InputError: an image cannot be read and ``on_error`` is 'raise'; a batch larger than the graph's; an
                argument out of range.
        """
        if isinstance(images, (str, os.PathLike, bytes, Image.Image, np.ndarray)):
            return self([images], score_thr, batch_size, bgr, on_error)[0]
        score_thr = self.metadata.score_thr if score_thr is None else self._checked_score_thr(score_thr)
        self._check_batch_size(batch_size)
        if on_error not in ON_ERROR:
            raise InputError(f'on_error must be one of {list(ON_ERROR)}, got {on_error!r}')
        results: list[Any] = []
        batch: list[tuple[int, NDArray[Any], dict[str, Any]]] = []

        def run() -> None:
            indices, pixels, known = (list(column) for column in zip(*batch))
            sizes = [about.pop('size') for about in known]
            for index, result in zip(indices, self._run(pixels, sizes, score_thr, known)):
                results[index] = result
            batch.clear()

        for i, source in enumerate(images):
            path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
            known: dict[str, Any] = dict(path=path, source=source, bgr=bgr)
            results.append(None)
            try:
                pixels = read_image(source, f'images[{i}]', bgr)
            except InputError as error:
                if on_error == 'raise':
                    raise
                results[i] = Result.failed(str(error), **known)
                continue
            known['size'] = pixels.shape[1], pixels.shape[0]
            batch.append((i, resized(pixels, *self.image_size, self.metadata.resize), known))
            if len(batch) == batch_size:
                run()
        if batch:
            run()
        return results

    def detect_resized(
        self,
        images: Sequence[NDArray[Any]],
        sizes: Sequence[tuple[int, int]],
        score_thr: float | Sequence[float] | None = None,
    ) -> list[Result]:
        """Detect objects in a batch of images that have been resized already, as :meth:`__call__` does it itself.

        Args:
            images: (height, width, 3) uint8, RGB, of :attr:`image_size`, or of any one size where the graph takes that;
                fewer than the graph's fixed number are filled up.
            sizes: width and height of each before that, in whose px the boxes are.
            score_thr: as of :meth:`__call__`.

        Raises:
            InputError: the graph takes none of this size, or not as many; a threshold out of range.
        """
        score_thr = self.metadata.score_thr if score_thr is None else self._checked_score_thr(score_thr)
        self._check_batch_size(len(images))
        self.metadata.check_size(images[0].shape[:2], str(self.path))
        return self._run(images, sizes, score_thr, [{} for _ in images])

    def _run(
        self,
        images: Sequence[NDArray[Any]],
        sizes: Sequence[tuple[int, int]],
        score_thr: Any,
        known: Sequence[dict[str, Any]],
    ) -> list[Result]:
        """One result for each image of a batch, with what is ``known`` of it."""
        missing = (self._backend.batch_size or len(images)) - len(images)
        pixels, of_originals = [*images, *[images[-1]] * missing], [*sizes, *[sizes[-1]] * missing]
        outputs = self._backend.run(network_inputs(pixels, of_originals, self.metadata))
        results = []
        for row, (size, about) in enumerate(zip(sizes, known)):
            detections = postprocess.of_outputs(outputs, row, size, self.metadata)
            detections = postprocess.apply_settings(
                detections, score_thr, self.metadata.overlap_thr, self.metadata.calibration
            )
            results.append(Result.of(detections, self.names, size=size, **about))
        return results

    def _check_batch_size(self, batch_size: int) -> None:
        _check_count('batch_size', batch_size)
        fixed = self._backend.batch_size
        if fixed is not None and batch_size > fixed:
            raise InputError(
                f'{self.path} takes batches of {fixed}, so batch_size can be {fixed} at most, got {batch_size}; '
                'export it without --batch for others'
            )

    def _checked_score_thr(self, score_thr: float | Sequence[float]) -> float | Sequence[float]:
        thresholds: list[Any] = [score_thr] if isinstance(score_thr, Real) else [*score_thr]  # type: ignore[misc]
        if not all(isinstance(value, Real) and 0 <= float(value) < 1 for value in thresholds):
            raise InputError(f'score_thr must lie in [0, 1), got {score_thr!r}')
        if not isinstance(score_thr, Real) and len(thresholds) != len(self.names):
            raise InputError(
                f'score_thr has {len(thresholds)} numbers for {len(self.names)} classes; give one number, or one for '
                'each class'
            )
        return score_thr

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, self._arguments

    def __repr__(self) -> str:
        height, width = self.image_size
        return f'Detector({str(self.path)!r}: {len(self.names)} classes, {height} x {width} px)'


def _opened(path: str, threads: int | None, providers: Any, precision: str | None, image_size: Any) -> Detector:
    return Detector(path, threads, providers, precision=precision, image_size=image_size)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InputError(f'{name} must be at least 1 and a whole number, got {value!r}')


def _checked_size(image_size: Sequence[int]) -> tuple[int, int]:
    sides = [*image_size] if isinstance(image_size, Iterable) else []
    if len(sides) != 2:
        raise InputError(f'image_size must be a height and a width in px, got {image_size!r}')
    for side in sides:
        _check_count('a side of image_size', side)
    return int(sides[0]), int(sides[1])

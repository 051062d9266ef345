"""Loading images in mmdet's pipelines such that an unusable one is never learnt from nor tested on in silence."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine.logging import print_log

from .. import registry
from ..errors import InputError
from .image_files import ImageError, check, decode, remark, size_of
from .skip_ledger import SkipLedger

ON_ERROR = ('raise', 'skip')
MAX_IN_A_ROW = 100  # where so many images on end are unusable, it is not a few files that are broken
_REMEDY = (
    'repair the file, or take its image out of the annotations; `python -m mmdet_iouquery.doctor data CONFIG` names '
    'all such files'
)


@registry.TRANSFORMS.register_module('LoadImageFromFile')
@TRANSFORMS.register_module()
class LoadCheckedImage(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` for whole images of the annotated size; what is not one is refused.

    In a config ``dict(type='LoadImageFromFile', _scope_='mmdet_iouquery')``, where mmdet's tools find the loader that
    they look for. ``dict(type='LoadCheckedImage')`` is the same to all but those tools, and kept for older configs.

    An image that was annotated as it is stored is taken so, and one annotated upright is turned as its EXIF data say;
    see :func:`~mmdet_iouquery.datasets.image_files.decode`.

    Args:
        on_error: 'raise', or 'skip': the dataset draws another sample instead (for training only: mmengine refuses that
            in test mode). A file skipped is named once in the log, with the reason.
        to_float32, backend_args: as in the parent.

    Raises:
        ValueError: ``on_error`` is neither.
        InputError: an image is unusable and ``on_error`` is 'raise'; or 100 on end were.
    """

    def __init__(
        self, *, on_error: str = 'raise', to_float32: bool = False, backend_args: dict[str, Any] | None = None
    ) -> None:
        super().__init__(to_float32=to_float32, backend_args=backend_args)
        if on_error not in ON_ERROR:
            raise ValueError(f'on_error must be one of {ON_ERROR}, got {on_error!r}')
        self.on_error = on_error
        self.ledger = SkipLedger()
        self._in_a_row = 0

    @property
    def skipped(self) -> int:
        """How often a sample was skipped so far, over all workers of the data loader."""
        return self.ledger.total

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Set ``img`` (H, W, 3) BGR, ``img_shape`` and ``ori_shape``.

        Needs ``img_path``; ``width`` and ``height`` in px are compared where the dataset gives them.
        """
        path = results['img_path']
        try:
            data = _read(path, self.backend_args)
            image = decode(data, _annotated_size(results))
        except ImageError as error:
            self._refuse(path, error)
            return None
        self._in_a_row = 0
        _log_once(path, remark(data, image))
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _refuse(self, path: str, error: ImageError) -> None:
        if self.on_error == 'raise':
            raise InputError(f'{path}: {error}; {_REMEDY}') from error
        self._in_a_row += 1
        if self._in_a_row >= MAX_IN_A_ROW:
            raise InputError(
                f'{self._in_a_row} images on end could not be used, the last of them {path}: {error}; {_REMEDY}'
            )
        if self.ledger.add(path):  # an error, as warnings of other ranks than the first are not shown
            print_log(f'skipped in training: {path}: {error}', logger='current', level=logging.ERROR)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(on_error={self.on_error!r}, to_float32={self.to_float32}, '
            f'backend_args={self.backend_args})'
        )


@TRANSFORMS.register_module()
class CheckImage(BaseTransform):
    """The same checks behind mmcv's ``LoadImageFromFile``, for test pipelines, in which mmdet replaces that step.

    Refuses what :class:`LoadCheckedImage` would, and takes the image as it is stored where only that has the size
    annotated. Images that come as arrays pass.

    Args:
        backend_args: as in ``LoadImageFromFile``.

    Raises:
        InputError: the image is unusable.
    """

    def __init__(self, *, backend_args: dict[str, Any] | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Needs ``img`` and, where the image comes from a file, ``img_path``."""
        path = results.get('img_path')
        if path is None:
            return results
        size = _annotated_size(results)
        try:
            data = _read(path, self.backend_args)
            check(data)
            _log_once(path, remark(data, results['img']))
            if size is not None and size_of(results['img']) != size:
                results['img'] = decode(data, size).astype(results['img'].dtype)
                results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        except ImageError as error:
            raise InputError(f'{path}: {error}; {_REMEDY}') from error
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend_args={self.backend_args})'


@cache
def _log_once(path: str, message: str | None) -> None:
    """A line in the log on an image that is used nevertheless; once in each process."""
    if message:
        print_log(f'{path}: {message}', logger='current', level=logging.WARNING)


def _read(path: str, backend_args: dict[str, Any] | None) -> bytes:
    try:
        return fileio.get(path, backend_args=backend_args)
    except OSError as error:
        if error.errno == errno.EMFILE:  # of the process, whatever the image
            raise
        raise ImageError(f'it cannot be read: {error.strerror or error}') from error


def _annotated_size(results: Mapping[str, Any]) -> tuple[float, float] | None:
    """Width and height as the dataset gives them; None where it does not."""
    size = results.get('width'), results.get('height')
    return None if None in size else size  # type: ignore[return-value]

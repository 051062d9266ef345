"""Frames of a video file, and a video of drawings that browsers play."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from ...errors import InputError

SUFFIX = '.webm'
"""Of what :class:`cv2.VideoWriter` writes: VP8, which OpenCV's wheels encode and all browsers play."""
# FFmpeg also takes play lists, which name other files and addresses to read: it is to read this file alone, as a video.
_FORMATS = 'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,ogg,flv,asf,gif'
_OPTIONS = {'OPENCV_FFMPEG_CAPTURE_OPTIONS': f'protocol_whitelist;file|format_whitelist;{_FORMATS}'}
_USUAL_RATE = 25.0  # frames a second, where a file doesn't say


class Frame(NamedTuple):
    """One image of a video."""

    time_s: float
    """Since the beginning."""
    image: Image.Image
    """RGB."""


class Video:
    """Some frames a second of a video file.

    Args:
        path: of the file.
        rate: frames a second, at most those of the file.

    Attributes:
        rate: frames a second that are read.
        count: how many that will be, about; None: the file doesn't say.

    Raises:
        InputError: it is no video that can be read.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        self._path = Path(path)
        with self._opened() as capture:
            self._own_rate, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
            readable = capture.grab()
        if not readable:
            raise self._refusal()
        if not 1 <= self._own_rate <= 240:
            self._own_rate = _USUAL_RATE
        self.rate = min(float(rate), self._own_rate)
        self.count = max(1, round(frames / self._own_rate * self.rate)) if frames > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        with self._opened() as capture:
            number, taken = 0, 0
            while capture.grab():
                time = number / self._own_rate
                number += 1
                if time < taken / self.rate - 1e-6:
                    continue
                taken += 1
                whole, pixels = capture.retrieve()
                if whole:
                    yield Frame(time, Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])))

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        os.environ.update(_OPTIONS)  # OpenCV asks for it when it opens a file
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise self._refusal()
            yield capture
        finally:
            capture.release()

    def _refusal(self) -> InputError:
        return InputError(f'{self._path.name} is no video that can be read; take an MP4, WebM or AVI file')


@contextmanager
def video_writer(path: Path, rate: float) -> Iterator[Any]:
    """Gives a function that adds an image to a video; all must have one size.

    Args:
        path: to write, ending in :data:`SUFFIX`.
        rate: frames a second.
    """
    writer = None

    def add(image: Image.Image) -> None:
        nonlocal writer
        if writer is None:
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*'VP80'), rate, image.size)
        writer.write(np.asarray(image)[..., ::-1])

    try:
        yield add
    finally:
        if writer is not None:
            writer.release()

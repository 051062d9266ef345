"""What an exported file says of itself: strings by name, JSON where there is more to say than a word.

The format's version 1; ``tools/export.py`` of mmdet-iouquery writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import InputError

FORMAT = 1
INPUTS = ('float32-nchw', 'uint8-nhwc')
OUTPUTS = ('detections', 'raw')
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'box', 'hamming', 'lanczos')


class Resize(NamedTuple):
    """How images are stretched."""

    interpolation: str = 'bilinear'
    """By Pillow's name."""
    antialias: bool = True
    """Whether the filter is widened where it shrinks, as Pillow does; without, bilinear as OpenCV does."""


@dataclass(frozen=True)
class Metadata:
    """What the runtime goes by."""

    names: tuple[str, ...]
    """Of the classes, by label."""
    image_size: tuple[int, int] | None
    """Height and width in px that the graph takes; None: any that are multiples of 32."""
    default_image_size: tuple[int, int]
    """Height and width in px of the test pipeline."""
    input: str
    """'float32-nchw': (B, 3, H, W), 0 to 255; 'uint8-nhwc': (B, H, W, 3). RGB both."""
    output: str
    """'detections', or 'raw': logits and normalised boxes of all queries."""
    resize: Resize
    max_per_img: int
    """Detections of an image at most."""
    score_thr: float | Sequence[float] | None
    """Detections score above this: one number, or one for each class."""
    overlap_thr: float | None
    """Of detections that overlap by more than this IoU the best is kept."""
    calibration: Mapping[str, Sequence[float]] | None
    """``scores`` and the ``precision`` that each of them becomes."""
    values: Mapping[str, str]
    """All that the file says, as it stands there."""

    @classmethod
    def read(cls, values: Mapping[str, str], file: str) -> Metadata:
        """Parse the strings of ``file``, its name in messages.

        Raises:
            InputError: the file is of another maker or a newer format, or lacks what it should say.
        """
        _check_format(values, file)
        parse = _Parser(values, file)
        names = parse.json('names', dict)
        resize, test_cfg = parse.json('resize', dict), parse.json('test_cfg', dict)
        parse.check('names', bool(names) and set(names) == {str(label) for label in range(len(names))})
        parse.check('task', values['task'] == 'detect' if 'task' in values else False)
        parse.check('channel_order', values.get('channel_order') == 'RGB')
        how = Resize(resize.get('interpolation', ''), resize.get('antialias', True))
        known = how.interpolation in INTERPOLATIONS if how.antialias is True else how == ('bilinear', False)
        parse.check('resize', known and resize.get('mode') == 'stretch')
        return cls(
            names=tuple(str(names[str(label)]) for label in range(len(names))),
            image_size=parse.size('imgsz', optional=True),
            default_image_size=parse.size('default_imgsz'),  # type: ignore[arg-type]
            input=parse.choice('input', INPUTS),
            output=parse.choice('output', OUTPUTS),
            resize=how,
            max_per_img=parse.json('max_per_img', int),
            score_thr=test_cfg.get('score_thr'),
            overlap_thr=test_cfg.get('overlap_thr'),
            calibration=test_cfg.get('calibration'),
            values=values,
        )


def _check_format(values: Mapping[str, str], file: str) -> None:
    text = values.get('iouquery.format')
    if text is None:
        raise InputError(
            f'{file} does not say how it is to be used (it has no iouquery.format), so it was written by another '
            'program; export the detector with tools/export.py of mmdet-iouquery'
        )
    if not text.isdigit() or not int(text):
        raise InputError(f'{file} has the unknown iouquery.format {text!r}; export it anew with tools/export.py')
    if int(text) > FORMAT:
        raise InputError(
            f'{file} is of format {text}, and this iouquery_runtime reads formats up to {FORMAT}: '
            'pip install --upgrade mmdet-iouquery'
        )


class _Parser:
    """Reads values of a file, and says which one is wrong."""

    def __init__(self, values: Mapping[str, str], file: str) -> None:
        self.values, self.file = values, file

    def check(self, name: str, right: bool) -> None:
        if not right:
            value = f'{self.values[name][:200]!r} for' if name in self.values else 'no'
            raise InputError(
                f'{self.file} has {value} {name!r} in its metadata, which iouquery_runtime does not know how to use; '
                'export it anew with tools/export.py, or pip install --upgrade mmdet-iouquery'
            )

    def json(self, name: str, kind: type) -> Any:
        try:
            value = json.loads(self.values[name])
        except (KeyError, ValueError):
            value = None
        self.check(name, isinstance(value, kind) and not isinstance(value, bool))
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        self.check(name, self.values.get(name) in choices)
        return self.values[name]

    def size(self, name: str, optional: bool = False) -> tuple[int, int] | None:
        if optional and self.values.get(name) == 'null':
            return None
        size = self.json(name, list)
        self.check(name, len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size))
        return size[0], size[1]

"""What an exported file says of itself: strings by name, JSON where there is more to say than a word.

The format's version 1; ``iouquery export`` of mmdet-iouquery writes it.
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
STRIDE = 32
"""What height and width are multiples of, where a graph takes any."""
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
    """Height and width in px that the graph takes; None: any that are multiples of 32 and have tokens enough."""
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
    strides: tuple[int, ...]
    """Of the maps whose pixels are the tokens, in px; empty: the file does not say."""
    min_tokens: int
    """That queries are chosen from; fewer, of small images, a graph of any size does not run on."""
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
        strides = parse.json('strides', list) if 'strides' in values else []
        parse.check('strides', all(isinstance(stride, int) and stride > 0 for stride in strides))
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
            strides=tuple(strides),
            min_tokens=parse.json('min_tokens', int) if strides else 0,
            values=values,
        )

    def check_size(self, size: Sequence[int], file: str) -> None:
        """Raise :class:`InputError` where the graph of ``file`` does not take images of this height and width."""
        height, width = size
        if self.image_size is not None:
            if self.image_size != (height, width):
                raise InputError(
                    f'{file} takes images of {_times(self.image_size)} (height x width) alone, got {_times(size)}; '
                    'leave image_size out, or export the detector by `iouquery export --dynamic-size`'
                )
        elif height % STRIDE or width % STRIDE:
            nearest = [max(STRIDE, round(side / STRIDE) * STRIDE) for side in size]
            while self.strides and num_tokens(nearest, self.strides) < self.min_tokens:
                nearest = [side + STRIDE for side in nearest]
            raise InputError(
                f'{file} takes images whose height and width are multiples of {STRIDE}, got {_times(size)}; nearest is '
                f'{_times(nearest)}'
            )
        elif self.strides and num_tokens(size, self.strides) < self.min_tokens:
            raise InputError(
                f'{file} chooses its queries from {self.min_tokens} tokens at least, and an image of {_times(size)} '
                f'(height x width) has {num_tokens(size, self.strides)}; name a larger image_size'
            )


def num_tokens(size: Sequence[int], strides: Sequence[int]) -> int:
    """How many pixels the maps of these strides have of an image of a height and width in px."""
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def _times(size: Sequence[int]) -> str:
    return f'{size[0]}x{size[1]}'


def _check_format(values: Mapping[str, str], file: str) -> None:
    text = values.get('iouquery.format')
    if text is None:
        raise InputError(
            f'{file} does not say how it is to be used (it has no iouquery.format), so it was written by another '
            'program; export the detector with `iouquery export` of mmdet-iouquery'
        )
    if not text.isdigit() or not int(text):
        raise InputError(f'{file} has the unknown iouquery.format {text!r}; export it again with `iouquery export`')
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
                'export it again with `iouquery export`, or pip install --upgrade mmdet-iouquery'
            )

    def json(self, name: str, kind: type[Any]) -> Any:
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

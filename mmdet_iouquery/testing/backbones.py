"""Laws of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .laws import CALLED, Outputs, Subject, seeded

SIZES = ((64, 96), (128, 64))
"""Height and width of the images: multiples of 32, and no squares."""


@seeded()
def check_backbone(part: Any, *, strides: Sequence[int] = (8, 16, 32)) -> None:
    """Hold a backbone to what necks ask of one.

    Of images (B, 3, H, W) it gives a tuple of maps (B, C, H / stride, W / stride), the finest first, of the same
    channels for every size; every parameter that is to learn does. And the laws of all that predict: see
    :meth:`.Subject.check_calls`.

    Args:
        part: the config, or a built backbone.
        strides: of the maps, in px.

    Raises:
        LawError: a law is broken.
        InputError: the config is wrong.
    """
    subject = Subject(part)
    channels: list[list[int]] = []
    for height, width in SIZES:
        images = torch.rand(3, 3, height, width)
        with torch.no_grad(), subject.running(CALLED):
            maps = subject.training(False)(images)
        subject.record('the answer', maps, tuple)
        subject.hold(len(maps) == len(strides), f'there are maps of the strides {tuple(strides)}', f'{len(maps)} maps')
        channels.append([x.shape[1] for x in maps])
        for i, (x, stride) in enumerate(zip(maps, strides)):
            subject.tensor(f'map {i}', x, (3, channels[0][i], height // stride, width // stride))
        subject.check_calls(_call, images, traced=(height, width) == SIZES[0])
    with subject.running(CALLED):
        subject.check_learning(_call(subject.training(), torch.rand(2, 3, 64, 96)))


def _call(part: Any, images: Tensor) -> Outputs:
    return {f'map {i}': x for i, x in enumerate(part(images))}

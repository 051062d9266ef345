"""Boxes that a training's pipeline leaves out for their size, counted before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...config_options import type_name
from .report import CheckedSet, targets


class Resizing(NamedTuple):
    """A ``Resize`` to a fixed size: width and height in px, and whether the image's proportions are kept."""

    width: int
    height: int
    keep_ratio: bool

    @classmethod
    def of(cls, step: Mapping[str, Any]) -> Resizing | None:
        """That of a pipeline's step; None: it is no such one."""
        scale = step.get('scale')
        if type_name(step) not in ('Resize', 'AntialiasedResize') or scale is None:
            return None
        width, height = (scale, scale) if isinstance(scale, int) else scale
        return cls(int(width), int(height), bool(step.get('keep_ratio', False)))

    def factors(self, sizes: NDArray[Any]) -> NDArray[Any]:
        """Scale of width and height for images of ``sizes`` (N, 2), (N, 2)."""
        if not self.keep_ratio:
            return np.asarray((self.width, self.height) / sizes)
        sides = np.sort([self.width, self.height]) / np.sort(sizes, axis=1)
        return np.repeat(sides.min(axis=1, keepdims=True), 2, axis=1)


def small_boxes_warning(checked: CheckedSet, steps: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    """How many targets ``FilterAnnotations`` drops of images that are resized, and not augmented otherwise.

    What follows a resizing to a drawn size is not looked at.

    Args:
        checked: the set.
        steps: of its pipeline, each with its dotted key in the config.

    Returns:
        A sentence; None: it drops none.
    """
    arrays = checked.arrays
    sizes, image = arrays.sizes, 'as it is read'
    sides = np.minimum(arrays.boxes[:, :2] + arrays.boxes[:, 2:], sizes) - np.maximum(arrays.boxes[:, :2], 0)
    trained_on = targets(arrays, checked.wanted) & np.isin(arrays.image_rows, checked.image_rows)
    left_out, images_of_limit, keys = np.zeros_like(trained_on), dict[str, list[str]](), []
    for key, step in steps:
        resizing = Resizing.of(step)
        if resizing is not None:
            factors = resizing.factors(sizes)
            sizes, sides, image = sizes * factors, sides * factors, f'resized to {resizing.width} x {resizing.height}'
        elif 'Resize' in str(step):
            break
        elif type_name(step) == 'FilterAnnotations' and step.get('by_box', True):
            width, height = step.get('min_gt_bbox_wh', (1, 1))
            small = trained_on & (sides <= (width, height)).any(axis=1)
            if small.any():
                side = 'width or height' if width == height else f'width up to {width} px or a height'
                images_of_limit.setdefault(f'a {side} up to {height} px', []).append(image)
                keys.append(f'{key}.min_gt_bbox_wh')
            left_out |= small
    if not keys:
        return None
    limits = [f'{limit} in the image {" or ".join(images)}' for limit, images in images_of_limit.items()]
    return (
        f'{left_out.sum()} of {trained_on.sum()} boxes, in {len(np.unique(arrays.image_rows[left_out]))} images, are '
        f'too small for the training, which leaves them out ({", or ".join(limits)}); the limit is {" and ".join(keys)}'
    )

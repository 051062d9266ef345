"""Images to look at: uploaded ones, and those of a run's validation set, which come with their ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mmengine.registry import init_default_scope
from PIL import Image, ImageOps

from ...engine.detector import read_config
from ...errors import InputError
from ...evaluation.selection_quality import Objects
from ..analyze.images import Images

COUNT = 12
"""Examples of a set."""
_SIDE = 240  # px of a thumbnail


class Example(NamedTuple):
    """An image file, and its ground truth where it is known."""

    path: Path
    size: tuple[int, int] | None = None
    """Width and height in px as annotated; None: it isn't annotated."""
    objects: Objects | None = None
    """Ground truth, in px of an image of that size; None: unknown."""
    classes: tuple[str, ...] = ()
    """Names of the ground truth's labels."""


def validation_examples(config: Path, count: int = COUNT) -> list[Example]:
    """The first annotated images of a config's validation set whose files are on this machine.

    Raises:
        InputError: there is no such set, or none of its images is here.
    """
    cfg = read_config(str(config))
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    try:
        images = Images(cfg, 'val')
    except (OSError, KeyError, AssertionError, ValueError) as error:  # a set that was moved, or is none of COCO's
        raise InputError(
            f'the validation set of {config} cannot be read: {error}; correct its val_dataloader'
        ) from error
    examples: list[Example] = []
    for index in range(len(images)):
        info = images.dataset.get_data_info(index)
        objects, path = images.objects(index), Path(info['img_path'])
        if len(objects.labels) and path.is_file():
            examples.append(Example(path, (info['width'], info['height']), objects, images.classes))
        if len(examples) == count:
            break
    if not examples:
        raise InputError(
            f'no image of the validation set of {config} is on this machine; copy the images to where its '
            'val_dataloader names them'
        )
    return examples


def thumbnail(path: Path) -> Image.Image:
    """A small copy, upright; a grey one of what can't be read."""
    try:
        with Image.open(path) as image:
            image.draft('RGB', (_SIDE, _SIDE))
            small = ImageOps.exif_transpose(image).convert('RGB')
    except (OSError, ValueError, SyntaxError):  # what Pillow makes of broken files
        return Image.new('RGB', (_SIDE, _SIDE), 'grey')
    small.thumbnail((_SIDE, _SIDE))
    return small

"""The splits of a set: those that it says, or a seeded draw that keeps the shares of the classes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import InputError
from .reading import Account, LabelledImage

VAL_SHARE = 0.2

Splits = dict[str, list[LabelledImage]]


def splits_of(
    images: Sequence[LabelledImage], account: Account, where: Path, seed: int, earlier: Mapping[Path, str] | None = None
) -> tuple[Splits, bool]:
    """Training, validation and, where the set has one, test images, each in the order of their paths.

    What is for testing stays apart. Without validation images, some of those for training are drawn.

    Args:
        images: of the set.
        account: what is left out is added to.
        where: the set, for messages.
        seed: of the draw.
        earlier: the split of each image that was drawn before; it keeps it.

    Returns:
        The splits, and whether they were drawn.

    Raises:
        InputError: nothing is for training, or too few images have objects to be drawn from.
    """
    named: Splits = {'train': [], 'val': [], 'test': [], '': []}
    seen = set()
    for image in sorted(images, key=lambda image: image.path):
        if (image.path, image.split) in seen:
            account.leave_out('images', 'named a second time', str(image.path))
            continue
        seen.add((image.path, image.split))
        named[image.split].append(image)
    unnamed = named.pop('')
    if not named['train']:
        named['train'] = unnamed
    else:
        for image in unnamed:
            account.leave_out('images', 'for neither training nor validation', str(image.path), fault=False)
    if not named['train']:
        raise InputError(
            f'{where} has images for {" and ".join(k for k in named if named[k])}, but none for training; name the '
            'part to train on train'
        )
    drawn = not named['val']
    if drawn:
        labels = [frozenset(box.label for box in image.boxes) for image in named['train']]
        if sum(map(bool, labels)) < 2:
            raise InputError(
                f'{where} has {sum(map(bool, labels))} image with objects; a set needs one for training and one for '
                'validation'
            )
        everything = named['train']
        paths = [image.path for image in everything]
        kept = {index: earlier[path] for index, path in enumerate(paths) if path in earlier} if earlier else {}
        if kept:
            account.remarks.append(f'images that keep the split of an earlier draw: {len(kept)}')
        chosen = draw(labels, seed, kept=kept)
        named['val'] = [image for index, image in enumerate(everything) if index in chosen]
        named['train'] = [image for index, image in enumerate(everything) if index not in chosen]
    return {split: images for split, images in named.items() if images}, drawn


def draw(
    labels: Sequence[frozenset[str]], seed: int, share: float = VAL_SHARE, kept: Mapping[int, str] | None = None
) -> set[int]:
    """Choose images for validation, so that each class has its share there, as far as its images allow.

    The rarest class is dealt with first, as its images leave the least choice (iterative stratification: Sechidis,
    Tsoumakas, Vlahavas, 2011). Where its images allow, a class with two or more has one in each split; one with a
    single image is for training. Images without objects are drawn by themselves.

    Args:
        labels: the classes of each image; at least two images have some.
        seed: of the draw. The order of the images matters too.
        share: in (0, 1).
        kept: the split, ``train`` or ``val``, of images that are not drawn; one of them is all the same where no other
            image with objects is left for validation.

    Returns:
        Places in ``labels``; at least one has objects.
    """
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)
    kept = kept or {}
    free = [index for index in order if index not in kept]
    total = Counter(name for image in labels for name in image)
    wanted = {name: 0 if count == 1 else max(1, round(share * count)) for name, count in total.items()}
    chosen = {index for index, split in kept.items() if split == 'val'}
    inside = Counter(name for index in chosen for name in labels[index])  # images of each class that are chosen

    def overshoot(index: int) -> int:
        return sum(inside[name] >= wanted[name] for name in labels[index])

    for name in sorted(total, key=lambda name: (total[name], name)):
        candidates = [index for index in free if name in labels[index] and index not in chosen]
        for index in sorted(candidates, key=overshoot):
            leaves_some = all(inside[other] < total[other] - 1 for other in labels[index])  # for training
            if inside[name] < wanted[name] and leaves_some:
                chosen.add(index)
                inside.update(labels[index])
    if not inside:  # every class has one image, or all images have the same rare one
        filled = [index for index in free if labels[index]] or [index for index in order if labels[index]]
        chosen.add(min(filled, key=lambda index: sum(total[name] == 1 for name in labels[index])))
    wanted_empty = round(share * sum(not image for image in labels)) - sum(not labels[index] for index in chosen)
    chosen.update([index for index in free if not labels[index]][: max(0, wanted_empty)])
    return chosen

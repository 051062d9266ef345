"""The parts of a set: those that it says, or a seeded draw that keeps the shares of the classes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from .records import Account, LabelledImage

VAL_SHARE = 0.2

Parts = dict[str, list[LabelledImage]]


def parts_of(images: Sequence[LabelledImage], account: Account, where: Path, seed: int) -> tuple[Parts, bool]:
    """Training, validation and, where the set has one, test images, each in the order of their paths.

    What is for testing stays apart. Without validation images, some of those for training are drawn.

    Returns:
        The parts, and whether they were drawn.

    Raises:
        InputError: nothing is for training, or too few images have objects to be drawn from.
    """
    named: Parts = {'train': [], 'val': [], 'test': [], '': []}
    seen = set()
    for image in sorted(images, key=lambda image: image.path):
        if (image.path, image.part) in seen:
            account.leave_out('images', 'named a second time', str(image.path))
            continue
        seen.add((image.path, image.part))
        named[image.part].append(image)
    rest = named.pop('')
    if not named['train']:
        named['train'] = rest
    else:
        for image in rest:
            account.leave_out('images', 'for neither training nor validation', str(image.path), fault=False)
    if not named['train']:
        raise InputError(
            f'{where} has images for {" and ".join(k for k in named if named[k])}, but none for training; name the '
            'part to train on train'
        )
    drawn = not named['val']
    if drawn:
        labels = [frozenset(one.label for one in image.boxes) for image in named['train']]
        if sum(map(bool, labels)) < 2:
            raise InputError(
                f'{where} has {sum(map(bool, labels))} image with objects; a set needs one for training and one for '
                'validation'
            )
        chosen = draw(labels, seed)
        everything = named['train']
        named['val'] = [image for place, image in enumerate(everything) if place in chosen]
        named['train'] = [image for place, image in enumerate(everything) if place not in chosen]
    return {part: images for part, images in named.items() if images}, drawn


def draw(labels: Sequence[frozenset[str]], seed: int, share: float = VAL_SHARE) -> set[int]:
    """Choose images for validation, so that each class has its share there, as far as its images allow.

    The rarest class is dealt with first, as its images leave the least choice (iterative stratification: Sechidis,
    Tsoumakas, Vlahavas, 2011). Where its images allow, a class with two or more has one in each part; one with a single
    image is for training. Images without objects are drawn by themselves.

    Args:
        labels: the classes of each image; at least two images have some.
        seed: of the draw. The order of the images matters too.
        share: in (0, 1).

    Returns:
        Places in ``labels``; at least one has objects.
    """
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)
    total = Counter(name for image in labels for name in image)
    wanted = {name: 0 if count == 1 else max(1, round(share * count)) for name, count in total.items()}
    chosen: set[int] = set()
    inside: Counter[str] = Counter()  # images of each class that are chosen

    def overshoot(place: int) -> int:
        return sum(inside[name] >= wanted[name] for name in labels[place])

    for name in sorted(total, key=lambda name: (total[name], name)):
        places = [place for place in order if name in labels[place] and place not in chosen]
        for place in sorted(places, key=overshoot):
            leaves_some = all(inside[other] < total[other] - 1 for other in labels[place])  # for training
            if inside[name] < wanted[name] and leaves_some:
                chosen.add(place)
                inside.update(labels[place])
    empty = [place for place in order if not labels[place]]
    if not chosen:  # every class has one image, or all images have the same rare one
        filled = [place for place in order if labels[place]]
        chosen.add(min(filled, key=lambda place: sum(total[name] == 1 for name in labels[place])))
    chosen.update(empty[: round(share * len(empty))])
    return chosen

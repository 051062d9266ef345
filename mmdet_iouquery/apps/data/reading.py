"""What a reader of a form hands on: images with their boxes, and an account of what was left out, changed or assumed.

Boxes are x, y, w, h in px of their image, as COCO has them. A size is (width, height) in px.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...datasets.coco.class_list import listed
from ...errors import InputError
from .folder import Folder

Box = tuple[float, float, float, float]
Size = tuple[int, int]
_MOST = 0.5  # of the boxes, or of the images: a fault that more of them share is in how the set was written
_SHOWN = 5  # names that are kept of each kind


@dataclass(frozen=True)
class LabelledBox:
    """One object; ``crowd`` is neither trained on nor counted as missed, as COCO's ``iscrowd``."""

    label: str
    box: Box
    crowd: bool = False


@dataclass(frozen=True)
class LabelledImage:
    """An image file that can be read; ``split`` is ``train``, ``val``, ``test`` or empty."""

    path: Path
    size: Size
    boxes: tuple[LabelledBox, ...]
    split: str = ''


@dataclass
class Tally:
    """How many of a kind, the first names, each once, and whether they are faults (and not a matter of choice)."""

    fault: bool = False
    count: int = 0
    first: list[str] = field(default_factory=list)
    has_more: bool = False

    def add(self, name: str) -> None:
        """Count one."""
        self.count += 1
        if name in self.first:
            return
        if len(self.first) < _SHOWN:
            self.first.append(name)
        else:
            self.has_more = True

    def __str__(self) -> str:
        shown = ', '.join(map(repr, self.first))
        return f'{self.count} ({shown}{", ..." if self.has_more else ""})'


@dataclass
class Account:
    """What a reader left out or changed.

    Attributes:
        left_out: by what (``images``, ``boxes``) and why.
        changed: what was read otherwise than written, by what was done.
        remarks: sentences on the set as a whole.
    """

    left_out: dict[tuple[str, str], Tally] = field(default_factory=dict)
    changed: dict[str, Tally] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def leave_out(self, kind: str, reason: str, name: str, *, fault: bool = True) -> None:
        """Count an image or a box that is left out; ``fault``: it was meant to be read."""
        self.left_out.setdefault((kind, reason), Tally(fault)).add(name)

    def change(self, change: str, name: str) -> None:
        """Count something that was read otherwise than written."""
        self.changed.setdefault(change, Tally()).add(name)


@dataclass(frozen=True)
class Reading:
    """A set as it was understood.

    Attributes:
        form: its name for people, such as ``YOLO``.
        source: the folder or file that was read, for messages.
        images: in the order of their paths.
        classes: in the order in which labels are numbered; each name once.
        account: what was not taken as it is.
    """

    form: str
    source: Path
    images: tuple[LabelledImage, ...]
    classes: tuple[str, ...]
    account: Account


def sound_boxes(account: Account, boxes: Iterable[LabelledBox], name: str) -> tuple[LabelledBox, ...]:
    """Those that are boxes: finite, with two sides above 0, and written once."""
    kept: dict[LabelledBox, None] = {}
    for labelled in boxes:
        if not all(map(math.isfinite, labelled.box)):
            account.leave_out('boxes', 'not finite', name)
        elif labelled.box[2] <= 0 or labelled.box[3] <= 0:
            account.leave_out('boxes', 'without width or height', name)
        elif labelled in kept:
            account.leave_out('boxes', 'written twice', name, fault=False)
        else:
            kept[labelled] = None
    return tuple(kept)


def check_reading(reading: Reading) -> None:
    """Refuse what is no set, or shows by most of its parts that it was written in another way than it was read.

    Raises:
        InputError: a class's name is used twice or empty, more than half of the images or boxes have one fault, no
            image or no object is left.
    """
    where, account = reading.source, reading.account
    twice = [name for name in dict.fromkeys(reading.classes) if reading.classes.count(name) > 1]
    if twice:
        raise InputError(f'{where}: the class name {twice[0]!r} is given to several classes; give each its own')
    if '' in reading.classes:
        raise InputError(f'{where}: class {reading.classes.index("")} (counted from 0) has an empty name; name it')
    kept = {'images': len(reading.images), 'boxes': sum(len(image.boxes) for image in reading.images)}
    for noun, left in kept.items():
        tallies = {reason: tally for (kind, reason), tally in account.left_out.items() if kind == noun}
        total = left + sum(tally.count for tally in tallies.values())
        for reason, tally in tallies.items():
            if tally.fault and tally.count > _MOST * total:
                raise InputError(
                    f'{where} was read as {reading.form}, but {tally.count} of {total} {noun} would be left out: '
                    f'{reason} ({listed(tally.first)}); correct the labels, or what says where the images are'
                )
        if not left:
            why = ''.join(f'; {reason}: {tally}' for reason, tally in tallies.items())
            raise InputError(
                f'{where} was read as {reading.form}, but has no {noun} that can be used{why}; correct the labels, or '
                'name another file'
            )


def polygon_box(xs: Sequence[float], ys: Sequence[float]) -> Box:
    """The box around points."""
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def turned_box(box: Box, degrees: float, centre: tuple[float, float]) -> Box:
    """The upright box around a box that is turned, clockwise on the screen, about a point."""
    if not degrees:
        return box
    x, y, w, h = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    offsets = [(a - centre[0], b - centre[1]) for a in (x, x + w) for b in (y, y + h)]
    return polygon_box(
        [centre[0] + a * cos - b * sin for a, b in offsets], [centre[1] + a * sin + b * cos for a, b in offsets]
    )


def number(text: object) -> float:
    """A finite number.

    Raises:
        ValueError: it is none.
    """
    value = float(str(text).strip())
    if not math.isfinite(value):
        raise ValueError(f'{text!r} is not finite')
    return value


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key by which 2 comes before 10."""
    return [(0, int(part), '') if part.isdecimal() else (1, 0, part) for part in re.split(r'(\d+)', name) if part]


def reading_of_files(
    form: str,
    folder: Folder,
    files: Sequence[Path],
    images: Sequence[LabelledImage],
    account: Account,
    unlisted: str,
    classes: Sequence[str] = (),
) -> Reading:
    """A reading of files that list their images: others are left out, as ``unlisted`` says; classes are sorted.

    Args:
        form: its name.
        folder: where the images are.
        files: that were read.
        images: that were found.
        account: of the reading.
        unlisted: why an image that no file names is left out.
        classes: that the files list, which come first.
    """
    for path in folder.images.unmeant():
        account.leave_out('images', unlisted, folder.name(path), fault=False)
    further = {box.label for image in images for box in image.boxes} - set(classes)
    source = files[0] if len(files) == 1 else folder.root
    return Reading(form, source, tuple(images), (*classes, *sorted(further, key=natural)), account)

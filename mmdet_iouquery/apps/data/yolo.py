"""YOLO: a text file for each image, a line for each object; data.yaml, obj.data or classes.txt have the names.

A line is ``class cx cy w h``, as shares of width and height; with more numbers it is a polygon's corners (as
Ultralytics' segmentation and oriented boxes have them), or a box with keypoints where data.yaml has ``kpt_shape``.
Source: docs.ultralytics.com/datasets, and AlexeyAB/darknet's README for obj.data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from ...datasets.coco.json_file import decoded
from ...datasets.image_files import ImageError
from ...errors import InputError
from .folder import IMAGE_SUFFIXES, Folder, Images, counted, folder_role
from .image_sizes import agreed_size
from .reading import Account, Box, LabelledBox, LabelledImage, Reading, number, polygon_box, sound_boxes

NAMES_FILES = ('classes.txt', 'obj.names', 'classes.names', 'names.txt', '_darknet.labels', 'labels.txt')
_ROLES = {'train': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}
_BEYOND = 1.5  # a centre that lies so far out, in shares of the image, is written in px
_MOST = 0.5


@dataclass(frozen=True)
class Description:
    """What data.yaml or obj.data says.

    Attributes:
        names: of the classes, by their numbers.
        entries: folders, lists and files of each split, as they are written.
        folder: what the file says paths begin in, as it is written.
        keypoint_values: numbers of an object's keypoints that follow its box.
    """

    names: dict[int, str]
    entries: dict[str, list[str]] = field(default_factory=dict)
    folder: str = ''
    keypoint_values: int = 0


def describes_yolo(path: Path) -> bool:
    """Whether a .yaml or .data file is such a description; one that cannot be parsed is, where it is called so."""
    try:
        content = _content(path)
    except InputError:
        return path.stem.lower() == 'data'
    return 'names' in content and any(role in content for role in (*_ROLES, 'nc', 'path', 'classes'))


def names_files(folder: Folder) -> list[Path]:
    """Files with a class name on each line, in the folder and one below."""
    return [path for path in folder.with_suffix('.txt', '.names', '.labels', depth=1) if path.name in NAMES_FILES]


def read_yolo(folder: Folder, description: Path | None) -> Reading:
    """Read a set.

    Args:
        folder: the set's.
        description: data.yaml or obj.data; None: classes are in one of :data:`NAMES_FILES`, and the folders' names say
            what is for training and what for validation.

    Raises:
        InputError: the description cannot be read, names no class, or folders that are not there; class names are
            missing; boxes are written in px.
    """
    if description is None:
        source, described = folder.root, Description(_names_beside(folder))
        listed = [(image, folder_role(image, folder.root)) for image in folder.images.paths]
        account = Account()
    else:
        source, account = description, Account()
        described = _description(description)
        entry_paths = _EntryPaths(description, described.folder, account)
        listed = [
            (image, role) for role in described.entries for image in entry_paths.images(role, described.entries[role])
        ]
        _say_common(account, listed)
    reader = _Reader(folder, described, account)
    images = [image for path, role in counted(listed, 'labels') if (image := reader.image(path, role)) is not None]
    reader.check_scale(source)
    reader.say_lonely_labels()
    return Reading(
        'YOLO', source, tuple(images), tuple(described.names[key] for key in sorted(described.names)), account
    )


class _Reader:
    """Reads the labels of images, and keeps count."""

    def __init__(self, folder: Folder, described: Description, account: Account) -> None:
        self.folder, self.described, self.account = folder, described, account
        self.used: set[Path] = set()
        self.unlabelled: list[Path] = []
        self.boxes = self.beyond = 0

    def image(self, path: Path, role: str) -> LabelledImage | None:
        """An image with its boxes; None where its file cannot be read."""
        name = self.folder.name(path)
        label = next((label for label in _label_files(path, self.folder.root) if label.is_file()), None)
        if label is not None:
            self.used.add(label)
        try:
            size = agreed_size(path, None)
        except ImageError as error:
            self.account.leave_out('images', str(error), name)
            return None
        if label is None:  # by the form's own rule nothing is to be seen on such an image
            self.account.change('images without a label file read as images without objects', name)
            return LabelledImage(path, size, (), role)
        boxes = [
            LabelledBox(self.described.names[key], (x * size[0], y * size[1], w * size[0], h * size[1]))
            for key, (x, y, w, h) in self._lines(label)
        ]
        return LabelledImage(path, size, sound_boxes(self.account, boxes, self.folder.name(label)), role)

    def _lines(self, label: Path) -> Iterator[tuple[int, Box]]:
        for row, line in enumerate(decoded(label, 'utf-8-sig').splitlines(), 1):
            if not line.strip():
                continue
            where = f'{self.folder.name(label)} line {row}'
            try:
                key, box = self._parsed(line.split(), where)
            except ValueError as error:
                self.account.leave_out('boxes', str(error), where)
                continue
            self.boxes += 1
            self.beyond += abs(box[0] + box[2] / 2 - 0.5) > _BEYOND or abs(box[1] + box[3] / 2 - 0.5) > _BEYOND
            yield key, box

    def _parsed(self, values: Sequence[str], where: str) -> tuple[int, Box]:
        """Class and box x, y, w, h in shares of the image."""
        try:
            key, *numbers = map(number, values)
        except ValueError:
            raise ValueError('a line that is not made of finite numbers') from None
        if key not in self.described.names:  # a whole number may be written as a float
            raise ValueError(f'class {values[0]}, which has no name')
        if len(numbers) == 4 + self.described.keypoint_values and self.described.keypoint_values:
            self.account.change('keypoints left out, their boxes kept', where)
        elif len(numbers) == 5:
            self.account.change('a sixth number (a confidence, or a track) left out', where)
        elif len(numbers) >= 6 and len(numbers) % 2 == 0:
            self.account.change('polygons converted to boxes', where)
            return int(key), polygon_box(numbers[::2], numbers[1::2])
        elif len(numbers) != 4:
            raise ValueError(f'a line of {len(values)} numbers, neither a box (5) nor a polygon (7, 9, ...)')
        x, y, w, h = numbers[:4]
        return int(key), (x - w / 2, y - h / 2, w, h)

    def check_scale(self, source: Path) -> None:
        """Raise InputError where most boxes are written in px."""
        if self.beyond > _MOST * self.boxes:
            raise InputError(
                f'{source}: {self.beyond} of {self.boxes} boxes lie outside their image by far; YOLO has centre, width '
                'and height as shares of the image, from 0 to 1: divide px by its width and height'
            )

    def say_lonely_labels(self) -> None:
        """Count label files beside those that were used which no image has."""
        for folder in sorted({path.parent for path in self.used}):
            for path in sorted(folder.glob('*.[tT][xX][tT]')):
                if path not in self.used and path.name not in NAMES_FILES and _has_objects(path):
                    self.account.leave_out('images', 'labels without an image', self.folder.name(path))


def _has_objects(path: Path) -> bool:
    """Whether it is a label file: a list of images or a readme may lie beside them."""
    values = next((line.split() for line in decoded(path, 'utf-8-sig').splitlines() if line.strip()), [])
    return len(values) >= 5 and values[0].isdecimal()


def _label_files(image: Path, root: Path) -> Iterator[Path]:
    """Where an image's labels may be: in ``labels`` for the last ``images``, beside it, in the set's ``labels``."""
    stems = []
    parts = image.parts
    for level in reversed(range(len(parts) - 1)):
        if parts[level].lower() == 'images':
            words = ('labels', 'Labels', 'LABELS') if parts[level] != 'images' else ('labels',)
            stems += [Path(*parts[:level], word, *parts[level + 1 :]) for word in words]
            break
    stems.append(image)
    if image.is_relative_to(root):
        stems.append(root / 'labels' / image.relative_to(root))
    for stem, suffix in product(stems, ('.txt', '.TXT')):
        yield stem.with_suffix(suffix)


class _EntryPaths:
    """Finds what a description names, which may have been written on another machine."""

    def __init__(self, description: Path, said_folder: str, account: Account) -> None:
        self.description, self.account = description, account
        self.bases = _bases(description, said_folder)

    def images(self, role: str, entries: Sequence[str]) -> list[Path]:
        """Images of a split, each once.

        Raises:
            InputError: an entry for training leads nowhere; of other splits this is a remark.
        """
        images: dict[Path, None] = {}
        for entry in entries:
            path = _path_of(entry, self.bases)
            if path is None and role == 'train':
                tried = ', '.join(dict.fromkeys(str(base / entry) for base in self.bases))
                raise InputError(
                    f'{self.description}: train: {entry} leads to no folder or file (tried {tried}); correct it, or '
                    'path:'
                )
            if path is None:
                self.account.remarks.append(f'{role}: {entry} of {self.description.name} is not there; passed over')
            elif path.is_dir():
                images.update(dict.fromkeys(Folder(path).images.paths))
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                images[path] = None
            else:
                images.update(dict.fromkeys(self._of_list(path)))
        return list(images)

    def _of_list(self, path: Path) -> Iterator[Path]:
        bases = [path.parent, *self.bases]
        for line in _lines_of(path):
            image = _path_of(line, bases)
            if image is not None and image.is_file():
                yield image
            else:
                self.account.leave_out('images', f'listed in {path.name}, but not there', line)


def _bases(description: Path, said_folder: str) -> list[Path]:
    beside = description.parent
    return [beside / said_folder, beside] if said_folder else [beside]


def _path_of(entry: str, bases: Sequence[Path]) -> Path | None:
    """An entry as it is written from each base, else the longest end of it that is there, below the bases."""
    entry = entry.replace('\\', '/')
    whole = [base / entry for base in bases]
    parts = [part for part in entry.split('/') if part not in ('', '.', '..')]
    ends = [base.joinpath(*parts[first:]) for first in range(len(parts)) for base in bases]
    return next((Path(os.path.normpath(path)) for path in (*whole, *ends) if path.exists()), None)


def _say_common(account: Account, listed: Sequence[tuple[Path, str]]) -> None:
    paths_by_split: dict[str, set[Path]] = {}
    for path, role in listed:
        paths_by_split.setdefault(role, set()).add(path)
    common = len(paths_by_split.get('train', set()) & paths_by_split.get('val', set()))
    if common:
        account.remarks.append(
            f'{common} images are for training and for validation: AP of such images says nothing of new ones'
        )


def _description(path: Path) -> Description:
    content = _content(path)
    entries: dict[str, list[str]] = {}
    for key, role in _ROLES.items():
        value = content.get(key)
        if value:
            entries.setdefault(role, []).extend(value if isinstance(value, list) else [value])
    if not entries:
        raise InputError(f'{path} names no images: it has none of train, val, test; add train: FOLDER')
    return Description(
        _names(path, content), {role: list(map(str, entry)) for role, entry in entries.items()},
        str(content.get('path') or ''), _keypoint_values(path, content.get('kpt_shape')),
    )  # fmt: skip


def _content(path: Path) -> Mapping[str, Any]:
    """The mapping of a YAML or a Darknet file; every value is text, as ``no`` and ``010`` may be names of classes.

    Raises:
        InputError: it is not that.
    """
    text = decoded(path, 'utf-8-sig')
    if path.suffix.lower() == '.data':
        pairs = [line.partition('=') for line in text.splitlines() if '=' in line]
        return {key.strip(): value.strip() for key, _, value in pairs}
    try:
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise InputError(
            f'{path} is no YAML that can be read: {" ".join(str(error).split())}; correct it there'
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f'{path} is no data.yaml: it holds no keys such as train, val and names; add them, or name another file'
        )
    return content


def _names(path: Path, content: Mapping[str, Any]) -> dict[int, str]:
    names = content.get('names')
    if isinstance(names, list):
        names = dict(enumerate(names))
    elif isinstance(names, str) and names:
        file = _path_of(names, _bases(path, str(content.get('path') or '')))
        if file is None or not file.is_file():
            raise InputError(f'{path}: names: {names} is no file; write names: [a, b, ...] or the path of such a file')
        names = dict(enumerate(_lines_of(file)))
    if not isinstance(names, dict) or not names:
        raise InputError(f'{path} names no classes; write names: [a, b, ...], in the order of their numbers')
    try:
        return {int(key): str(name).strip() for key, name in names.items()}
    except ValueError as error:
        raise InputError(f'{path}: a key of names is no whole number ({error}); write names: {{0: a, 1: b}}') from error


def _keypoint_values(path: Path, shape: Any) -> int:
    if shape is None:
        return 0
    try:
        points, values = map(int, shape)
    except (TypeError, ValueError) as error:
        raise InputError(f'{path}: kpt_shape {shape} is not [points, 2 or 3]; correct or remove it') from error
    return points * values


def _names_beside(folder: Folder) -> dict[int, str]:
    files = names_files(folder)
    paths_by_names = {tuple(_lines_of(path)): path for path in files}
    if len(paths_by_names) > 1:
        names = ', '.join(map(folder.name, paths_by_names.values()))
        raise InputError(f'{folder.root} has several lists of class names: {names}; keep one')
    if not paths_by_names or not next(iter(paths_by_names)):
        raise InputError(
            f'{folder.root} has labels in YOLO form, but no class names; write them to classes.txt, one a line, in the '
            'order of their numbers'
        )
    return dict(enumerate(next(iter(paths_by_names))))


def _lines_of(path: Path) -> list[str]:
    return [line.strip() for line in decoded(path, 'utf-8-sig').splitlines() if line.strip()]


def has_labels(images: Images) -> bool:
    """Whether one of the first images has a file with YOLO's labels."""
    for image in images.paths[:200]:
        for label in _label_files(image, images.root):
            if label.is_file() and _has_objects(label):
                return True
    return False

"""The files of a folder: which images there are, which one a label means, and the split that a folder's name says."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ...errors import InputError
from .coco_set import role_of

IMAGE_SUFFIXES = frozenset({'.bmp', '.gif', '.jfif', '.jpe', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'})
Item = TypeVar('Item')
_DEPTH = 8  # folders below the one named
_OF_SYSTEMS = frozenset({'__MACOSX', '__pycache__', 'node_modules'})


class NotFoundError(LookupError):
    """No image, or more than one, is meant by a name; the message is the reason alone."""


class Folder:
    """A folder, walked once, when its files are asked for."""

    def __init__(self, root: Path, *, without: Path | None = None) -> None:
        """``without``: a folder that is not looked into."""
        self.root, self.without = root, without

    @cached_property
    def files(self) -> list[Path]:
        """All files in it and below, sorted; hidden ones and hidden folders are passed over."""
        return sorted(_walk(self.root, self.without, _DEPTH, set()))

    def with_suffix(self, *suffixes: str, depth: int = _DEPTH) -> list[Path]:
        """Files of these endings, in small or capital letters, at most ``depth`` folders down."""
        deepest = len(self.root.parts) + 1 + depth
        return [path for path in self.files if path.suffix.lower() in suffixes and len(path.parts) <= deepest]

    @cached_property
    def images(self) -> Images:
        """Its image files."""
        return Images(self.root, (path for path in self.files if path.suffix.lower() in IMAGE_SUFFIXES))

    def name(self, path: Path) -> str:
        """A path as a report has it: relative to the folder where it lies below."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


class Images:
    """Image files, and the one that a label means.

    Labels name images by a path of another machine, by a name in other letters, or without its ending; what the names
    of folders leave open is not guessed.

    Attributes:
        paths: all of them.
        meant: those that were asked for.
    """

    def __init__(self, root: Path, paths: Iterable[Path]) -> None:
        self.root = root
        self.paths = list(paths)
        self.meant: set[Path] = set()
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._by_name[_key(path.name)].append(path)
            self._by_stem[_key(path.stem)].append(path)

    def named(self, name: str, near: Path | None = None) -> Path:
        """The image of a file name or path; a name without an ending means any.

        Args:
            name: with slashes or backslashes; of several images of one name, the one whose folders fit best is meant.
            near: a folder whose images come first.

        Raises:
            NotFoundError: there is none, or several fit as well.
        """
        parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.', '..')]
        if not parts:
            raise NotFoundError('no image is named')
        candidates = self._by_name.get(_key(parts[-1]), [])
        if not candidates and Path(parts[-1]).suffix.lower() not in IMAGE_SUFFIXES:
            candidates = self._by_stem.get(_key(parts[-1]), [])
        return self._best(candidates, [_key(part) for part in parts[:-1]], near)

    def of_label(self, label: Path) -> Path:
        """The image of a label file: of the same stem, in its folder or in one that stands in the same place.

        Raises:
            NotFoundError: as :meth:`named`.
        """
        folders = [_key(part) for part in label.parent.parts]
        return self._best(self._by_stem.get(_key(label.stem), []), folders, label.parent)

    def _best(self, candidates: list[Path], folders: list[str], near: Path | None) -> Path:
        if not candidates:
            raise NotFoundError('no image of that name')
        if len(candidates) > 1:
            beside = [path for path in candidates if path.parent == near]
            scores = [_common_tail([_key(part) for part in path.parent.parts], folders) for path in candidates]
            candidates = beside or [path for path, score in zip(candidates, scores) if score == max(scores)]
        if len(candidates) > 1:
            raise NotFoundError('several images of that name')
        self.meant.add(candidates[0])
        return candidates[0]

    def unmeant(self) -> list[Path]:
        """Those that no label has asked for."""
        return [path for path in self.paths if path not in self.meant]


def folder_role(path: Path, root: Path) -> str:
    """``train``, ``val``, ``test`` or empty: what the nearest folder of a file says that says one of them."""
    if not path.is_relative_to(root):
        root = Path(path.anchor)
    for folder in path.relative_to(root).parents:
        role = role_of(root / folder, root / folder.parent) if folder.name else ''
        if role:
            return role
    return ''


def file_role(file: Path, files: Sequence[Path], root: Path) -> str:
    """The split that one of several label files is for, by its name or folder; of a single one it is not asked."""
    return role_of(file, root) if len(files) > 1 else ''


def fingerprint(folders: Iterable[Path], without: Path | None = None) -> dict[str, str]:
    """For each folder, what changes with any of its files: names, sizes and times of all of them, as one SHA-256."""
    prints = {}
    for folder in folders:
        digest = sha256()
        for path in sorted(_walk(folder, without, _DEPTH, set())):
            stat = path.stat()
            digest.update(f'{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n'.encode(errors='replace'))
        prints[str(folder)] = digest.hexdigest()
    return prints


def _walk(folder: Path, without: Path | None, depth: int, visited: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if folder == without or real in visited:  # a link may lead back up
        return
    visited.add(real)
    try:
        with os.scandir(folder) as entries:
            listed = [entry for entry in entries if not entry.name.startswith('.')]
    except OSError as error:
        raise InputError(f'{folder} cannot be listed: {error.strerror or error}; check who may read it') from error
    for entry in listed:
        if entry.is_file():
            yield Path(entry.path)
        elif depth and entry.is_dir() and entry.name not in _OF_SYSTEMS:
            yield from _walk(Path(entry.path), without, depth - 1, visited)


def _common_tail(own: list[str], other: list[str]) -> int:
    """How many names are equal from the end, whatever stands in for the word for images: images, JPEGImages, labels."""
    own, other = ([part for part in parts if part not in _KINDS] for parts in (own, other))
    count = 0
    for own_name, other_name in zip(reversed(own), reversed(other)):
        if own_name != other_name:
            break
        count += 1
    return count


_KINDS = frozenset({'images', 'jpegimages', 'labels', 'annotations', 'xml', 'xmls', 'img', 'imgs', 'image', 'ann'})


def _key(name: str) -> str:
    return unicodedata.normalize('NFC', name).casefold()


def counted(items: Sequence[Item], kind: str) -> Iterable[Item]:
    """The items, with a bar on standard error where that is a terminal."""
    return tqdm(items, desc=f'reading {kind}', unit='image', disable=None, leave=False)

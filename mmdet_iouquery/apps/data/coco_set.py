"""A COCO-style detection set in a folder as people have it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ...datasets.coco.arrays import coco_arrays
from ...datasets.coco.json_file import CocoFile, read_coco
from ...errors import InputError
from ...file_io import text_checksum, write_text

Check = Callable[[Mapping[str, str], Optional[int]], None]
"""Is called with the checksums of a set's annotation files, by their paths, and, before they are written, the number of
images in them."""
_WORDS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}
# Official COCO keeps these beside its boxes; they are other tasks.
_OTHER_TASKS = ('captions_', 'person_keypoints_', 'panoptic_', 'stuff_', 'image_info_')
_VAL_SHARE = 0.2
_NAMES_TRIED = 8
_ARRANGEMENTS = (
    'arrange it as annotations/train.json, annotations/val.json, train/ and val/ (images), or give the path of one '
    'JSON with its images in the same folder or in images/'
)


@dataclass(frozen=True)
class CocoSet:
    """A set for training and validation: absolute paths, and the classes in the order of the files' categories.

    That order is the one in which CocoDataset numbers the labels; where the file is sorted, it is by category id.
    """

    train_ann: Path
    train_images: Path
    val_ann: Path
    val_images: Path
    classes: tuple[str, ...]


def find_coco_set(
    path: str | os.PathLike[str],
    split_to: str | os.PathLike[str] | None = None,
    *,
    earlier: Mapping[Path, str] | None = None,
    check: Check | None = None,
) -> CocoSet:
    """Find annotations and images of training and validation.

    Arrangements that are recognised, by the words ``train`` and ``val``/``valid``/``validation`` in a JSON's name or,
    where the name has neither, in that of its folder::

        annotations/instances_train2017.json + train2017/      (official COCO, val likewise)
        train/_annotations.coco.json, images beside it         (Roboflow; valid/ likewise)
        annotations/train.json + train/
        train.json + images/
        one JSON + images                                      (split here into training and validation)

    Args:
        path: a folder in one of the arrangements above, or a JSON file, which is then taken for the whole set.
        split_to: folder for ``train.json`` and ``val.json`` where the set is a single JSON: one image in five, chosen
            by a hash of its id, is for validation. A line on stdout says so.
        earlier: the split, ``train`` or ``val``, of image files that were split before; they keep it.
        check: is called before a split is written.

    Raises:
        InputError: nothing or more than one set is found, a JSON is unfit, its images aren't found, or training and
            validation have different categories. The message says what was found and what is needed.
    """
    root = Path(path).expanduser().absolute()
    if root.is_file():
        folder = root.parent.parent if root.parent.name == 'annotations' else root.parent
        return _split(read_coco(root), folder, split_to, earlier or {}, check)
    if not root.is_dir():
        raise InputError(f'no folder or file {root}; correct the path')
    files = _annotation_files(root)
    train, val = (_the_one(root, files, role) for role in ('train', 'val'))
    if train is not None and val is not None:
        return _pair(root, read_coco(train), read_coco(val))
    if val is not None:
        raise InputError(f'{root} has annotations for validation ({val}) but none for training; {_ARRANGEMENTS}')
    single = read_coco(train) if train is not None else _only_coco(root, files[''])
    return _split(single, root, split_to, earlier or {}, check)


def role_of(file: Path, root: Path) -> str:
    """``train``, ``val``, ``test`` or empty, by the words of a path's name, else of its folder's (below ``root``)."""
    for name in (file.stem, file.parent.name if file.parent != root else ''):
        roles = {_WORDS[word] for word in re.findall('[a-z]+', name.lower()) if word in _WORDS}
        if len(roles) == 1:
            return roles.pop()
    return ''


def _annotation_files(root: Path) -> dict[str, list[Path]]:
    """The JSON files of the folder and of its direct sub-folders, by role."""
    files: dict[str, list[Path]] = {'train': [], 'val': [], 'test': [], '': []}
    for file in sorted([*root.glob('*.json'), *root.glob('*/*.json')]):
        if not file.name.startswith(_OTHER_TASKS):
            files[role_of(file, root)].append(file)
    return files


def _the_one(root: Path, files_by_role: dict[str, list[Path]], role: str) -> Path | None:
    files = files_by_role[role]
    if len(files) > 1:
        raise InputError(
            f'{root} has {len(files)} annotation files for {role}: {_relative(root, files)}; keep one, or give the '
            'path of the JSON to use'
        )
    return files[0] if files else None


def _only_coco(root: Path, files: list[Path]) -> CocoFile:
    """The one file among those without a role that is COCO."""
    fits: list[CocoFile] = []
    reasons: list[str] = []
    for file in files:
        try:
            fits.append(read_coco(file))
        except InputError as error:
            reasons.append(str(error))
    if len(fits) > 1:
        names = _relative(root, [coco.path for coco in fits])
        raise InputError(f'{root} has several COCO files of unclear purpose: {names}; {_ARRANGEMENTS}')
    if not fits:
        folders = ', '.join(sorted(child.name + '/' for child in root.iterdir() if child.is_dir())[:8]) or 'none'
        why = f'; not usable: {"; ".join(reasons[:3])}' if reasons else ''
        jsons = _relative(root, files) or 'none'
        raise InputError(
            f'{root}: found no COCO annotations, in it or one folder down (JSON files: {jsons}; folders: {folders}'
            f'{why}); {_ARRANGEMENTS}'
        )
    return fits[0]


def _relative(root: Path, files: list[Path]) -> str:
    return ', '.join(str(file.relative_to(root)) for file in files[:8]) + (', ...' if len(files) > 8 else '')


def _pair(root: Path, train: CocoFile, val: CocoFile) -> CocoSet:
    _check_same_categories(train, val)
    return CocoSet(
        train_ann=train.path,
        train_images=find_images(train, root, 'train'),
        val_ann=val.path,
        val_images=find_images(val, root, 'val'),
        classes=train.classes,
    )


def _check_same_categories(train: CocoFile, val: CocoFile) -> None:
    in_train, in_val = ([(category['id'], category['name']) for category in coco.categories] for coco in (train, val))
    if in_train == in_val:
        return
    only_train = [pair for pair in in_train if pair not in in_val][:5]
    only_val = [pair for pair in in_val if pair not in in_train][:5]
    if only_train or only_val:
        difference = f'(id, name) only in the first: {only_train or "none"}, only in the second: {only_val or "none"}'
    else:
        difference = 'the order differs, by which CocoDataset numbers labels'
    raise InputError(
        f'{train.path} and {val.path} have different categories; {difference}; write the same list in both'
    )


def find_images(coco: CocoFile, root: Path, role: str) -> Path:
    """The folder from which the file names of a JSON lead to files.

    Several names, spread over the file, must exist. Folders are tried in this order: that of the JSON, those named for
    the role, other ones, those named for another role.

    Raises:
        InputError: no folder has them, or two equally good ones do.
    """
    count = len(coco.images)
    rows = sorted({row * count // _NAMES_TRIED for row in range(_NAMES_TRIED)})
    names = [coco.images[row]['file_name'] for row in rows]
    scores_by_folder: dict[Path, int] = {}
    for folders in _image_folders(coco.path, root, role):
        scores = {folder: sum((folder / name).is_file() for name in names) for folder in folders}
        complete = [folder for folder, score in scores.items() if score == len(names)]
        if len(complete) > 1:
            raise InputError(
                f'{coco.path}: its images are in several folders: {_relative(root, complete)}; keep one, or name it '
                f'for its purpose ({role or "images"}/)'
            )
        if complete:
            return complete[0]
        scores_by_folder.update(scores)
    best = max(scores_by_folder, key=lambda folder: scores_by_folder[folder])
    lost = next(name for name in names if not (best / name).is_file())
    if scores_by_folder[best]:
        score = f'{scores_by_folder[best]} of {len(names)} that were looked for'
        raise InputError(
            f'{coco.path}: {best} lacks the image {lost!r}, though it has {score}; put it there, or take it out of the '
            f'file; where all images are elsewhere, {_ARRANGEMENTS}'
        )
    raise InputError(f'{coco.path}: no folder of {root} has its images, such as {lost!r}; {_ARRANGEMENTS}')


def _image_folders(ann_file: Path, root: Path, role: str) -> Iterator[list[Path]]:
    """Groups of folders to try, best first; within a group none is better than another."""
    yield [ann_file.parent]
    below = [root, *_folders(root), *(inner for folder in _folders(root) for inner in _folders(folder))]
    others = [folder for folder in below if folder != ann_file.parent]
    roles = {folder: role_of(folder, root) if folder != root else '' for folder in others}
    if role:
        yield [folder for folder in others if roles[folder] == role]
    yield [folder for folder in others if not roles[folder]]
    yield [folder for folder in others if roles[folder] not in ('', role)]


def _folders(parent: Path) -> list[Path]:
    with os.scandir(parent) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith('.'))


def _split(
    coco: CocoFile,
    root: Path,
    split_to: str | os.PathLike[str] | None,
    earlier: Mapping[Path, str],
    check: Check | None,
) -> CocoSet:
    """Write a single JSON's images as two, one in five for validation."""
    if split_to is None:
        raise InputError(f'{coco.path} has no validation part; name a folder (split_to) that a split is written to')
    if len(coco.images) < 2:
        raise InputError(f'{coco.path} has one image; a set needs one for training and one for validation')
    coco_arrays(coco)  # an annotation of an unknown image would be lost in the split without a word
    images = find_images(coco, root, role_of(coco.path, root))
    folder = Path(split_to).expanduser().absolute()
    ids = {image['id']: earlier.get(images / image['file_name'], '') for image in coco.images}
    val_ids = _validation_ids(ids)
    train_ann, val_ann = folder / 'train.json', folder / 'val.json'
    texts = {train_ann: _text(coco, ids.keys() - val_ids, images), val_ann: _text(coco, val_ids, images)}
    if check is not None:
        check({str(path): text_checksum(text) for path, text in texts.items()}, len(ids))
    for path, text in texts.items():
        write_text(path, text)
    print(
        f'{coco.path} has no validation part: {len(coco.images) - len(val_ids)} of its images are for training '
        f'({train_ann}) and {len(val_ids)} for validation ({val_ann})'
    )
    return CocoSet(train_ann, images, val_ann, images, coco.classes)


def _validation_ids(splits: Mapping[object, str]) -> set[object]:
    """A fifth of the ids, at least one: those of the smallest hash, so that neither order nor names of files matter.

    Args:
        splits: ``train`` or ``val`` for each id that was split before and keeps it, else empty.
    """
    kept = {image_id for image_id, split in splits.items() if split == 'val'}
    free = [image_id for image_id, split in splits.items() if not split]
    ids = free if kept or free else [*splits]
    by_hash = sorted(ids, key=lambda image_id: (hashlib.sha256(str(image_id).encode()).hexdigest(), str(image_id)))
    return kept | {*by_hash[: max(0 if kept else 1, round(len(splits) * _VAL_SHARE) - len(kept))]}


def _text(coco: CocoFile, ids: Collection[object], folder: Path) -> str:
    content = {
        'info': {'image_folder': str(folder)},
        'images': [image for image in coco.images if image['id'] in ids],
        'annotations': [annotation for annotation in coco.annotations if annotation['image_id'] in ids],
        'categories': coco.categories,
    }
    return json.dumps(content)

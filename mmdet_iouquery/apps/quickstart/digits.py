"""A small detection set of real handwriting, made from nothing but what scikit-learn ships.

``load_digits`` (1,797 scans of 8x8 grey values) is pasted on crops of ``load_sample_images`` (``china.jpg`` and
``flower.jpg``, Creative Commons) at random places, sizes and colours. The set lies on disk as JPEG and COCO JSON, so
that ``CocoDataset`` reads it like anyone's data::

    root/digits.json                  the parameters it was made with
    root/train/000001.jpg ...         root/annotations/train.json
    root/val/000001.jpg ...           root/annotations/val.json

Train and validation share neither a scan nor a pixel of the photographs.

Shape shorthand: S scans, h and w a digit's height and width.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import InputError
from ...file_io import umask
from .digit_image import Digit, compose_image

CLASSES = tuple('0123456789')
SPLITS = ('train', 'val')
_RECIPE = 1  # raised whenever the images made from equal parameters change
_PHOTO_CUT = 0.7  # train backgrounds lie left of this share of a photograph's width, validation's right of it
_CROP_SIDE = (112, 190)  # px of the photograph that one background shows
_TRAIN_SHARE_OF_SCANS = 0.8
_JPEG_QUALITY = 92
_ATTRIBUTION = (
    'Digits: scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits). Backgrounds: china.jpg '
    '(danielbuechele, flickr 6061409035) and flower.jpg (vultilion, flickr 6056698931), CC BY 2.0, as shipped with '
    'scikit-learn.'
)


@dataclass(frozen=True)
class DigitsRecipe:
    """The parameters of one set; two sets with equal recipes are equal.

    Attributes:
        num_train: images in ``train/``.
        num_val: images in ``val/``.
        image_size: side of the square images in px. Digits are 24 to 96 px high at 256 and scale with it.
        seed: seed of every random choice.
        max_overlap: largest share of the smaller of two boxes that may lie in the other, in [0, 1).
    """

    num_train: int = 400
    num_val: int = 100
    image_size: int = 256
    seed: int = 0
    max_overlap: float = 0.05

    def check(self) -> None:
        """Look at every parameter's range.

        Raises:
            InputError: one is out of it.
        """
        for name, low, high in (('num_train', 1, 10**6), ('num_val', 1, 10**6), ('image_size', 96, 2048)):
            if not low <= getattr(self, name) <= high:
                option = name.replace('_', '-')
                raise InputError(f'{name} (--{option}) must lie in [{low}, {high}], got {getattr(self, name)}')
        if self.seed < 0:
            raise InputError(f'seed (--seed) must be 0 or more, got {self.seed}')
        if not 0 <= self.max_overlap < 1:
            raise InputError(f'max_overlap (--max-overlap) must lie in [0, 1), got {self.max_overlap}')


@dataclass(frozen=True)
class _Source:
    """What images are made of: scans (S, 8, 8) in [0, 1], their digits (S,), photographs of uint8 RGB."""

    scans: NDArray[Any]
    digits: NDArray[Any]
    photos: tuple[NDArray[Any], ...]


def build_digits(
    root: str | os.PathLike[str],
    *,
    num_train: int = 400,
    num_val: int = 100,
    image_size: int = 256,
    seed: int = 0,
    max_overlap: float = 0.05,
    progress: bool = True,
) -> Path:
    """Write the digits set, or leave an equal one that is already there; one that has lost files gets them back.

    It is built in a hidden folder beside ``root`` and renamed at the end, so ``root`` is never half a set.

    Args:
        root: folder to make; may exist only if empty or if it holds a set of the same parameters.
        num_train, num_val, image_size, seed, max_overlap: see :class:`DigitsRecipe`.
        progress: show a progress bar and say on stdout what was done.

    Returns:
        The absolute path of the set.

    Raises:
        InputError: a parameter is out of range, scikit-learn is missing, or ``root`` holds something else.
    """
    recipe = DigitsRecipe(num_train, num_val, image_size, seed, max_overlap)
    recipe.check()
    target = Path(root).absolute()
    if _is_built(target, recipe):
        if progress:
            print(f'{target} already holds this set; nothing done')
            _say_checksums(target)
        return target
    source = _load_source()
    prefix = f'.{target.name}.partial-'
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target.parent, prefix)
        partial = Path(tempfile.mkdtemp(prefix=f'{prefix}{os.getpid()}-', dir=target.parent))
        partial.chmod(0o777 & ~umask())  # others may be to read the set
    except OSError as error:
        raise InputError(f'cannot write to {target.parent}: {error.strerror or error}; name another folder') from error
    try:
        _write_set(partial, recipe, source, progress)
        if target.exists():  # _is_built saw that it is empty, or a set of this recipe that has lost files
            _restore(target, partial)
        else:
            partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if progress:
        print(f'{target}: {num_train} training and {num_val} validation images of {image_size} px')
        _say_checksums(target)
    return target


def _restore(target: Path, whole: Path) -> None:
    """Put the files of a whole set that ``target`` lacks there; what it has stays."""
    for path in sorted(whole.rglob('*')):
        target_file = target / path.relative_to(whole)
        if path.is_file() and not target_file.exists():
            target_file.parent.mkdir(exist_ok=True)
            path.rename(target_file)
    shutil.rmtree(whole)


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove half-made sets of processes that were killed."""
    for path in folder.glob(f'{glob.escape(prefix)}*-*') if os.name == 'posix' else ():
        pid = path.name[len(prefix) :].partition('-')[0]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (ValueError, OSError):  # not a number; a process of somebody else
            continue


def digits_checksums(root: str | os.PathLike[str]) -> dict[str, str]:
    """SHA-256 of the set in ``root``, which tells whether two machines train on the same data.

    There are two, because resampling and JPEG encoding can differ between versions of a library where the boxes do not.
    Each is the sum of a list of sums: what ``sha256sum train/*.jpg val/*.jpg | sha256sum`` prints in ``root``, and
    likewise ``annotations/train.json annotations/val.json``.

    Returns:
        ``annotations`` and ``images``, 64 hexadecimal digits each.
    """
    root = Path(root)
    annotations = [f'annotations/{split}.json' for split in SPLITS]
    images = [f'{split}/{name}' for split in SPLITS for name in sorted(p.name for p in (root / split).glob('*.jpg'))]
    return {'annotations': _sha256(root, annotations), 'images': _sha256(root, images)}


def _sha256(root: Path, names: list[str]) -> str:
    lines = [f'{hashlib.sha256((root / name).read_bytes()).hexdigest()}  {name}\n' for name in names]
    return hashlib.sha256(''.join(lines).encode()).hexdigest()


def _say_checksums(root: Path) -> None:
    """The first 16 digits of each, enough to compare by eye."""
    print('SHA-256: ' + ', '.join(f'{name} {digest[:16]}' for name, digest in digits_checksums(root).items()))


def scan_pools(num_scans: int, seed: int) -> dict[str, NDArray[Any]]:
    """Scan indices of each split: disjoint, together all of them, the same for the same seed.

    Returns:
        ``train`` and ``val``, integer arrays.
    """
    order = np.random.default_rng([seed, 0]).permutation(num_scans)
    cut = round(num_scans * _TRAIN_SHARE_OF_SCANS)
    return {'train': order[:cut], 'val': order[cut:]}


def _is_built(target: Path, recipe: DigitsRecipe) -> bool:
    """Whether ``target`` holds the whole set already.

    Raises:
        InputError: it holds something else.
    """
    if not target.exists():
        return False
    if not target.is_dir():
        raise InputError(f'{target} is a file; name a folder for the digits set')
    if not any(target.iterdir()):
        return False
    note = target / 'digits.json'
    remedy = 'choose another folder, or delete this one'
    if not note.is_file():
        raise InputError(f'{target} holds files that are not a digits set; {remedy}')
    try:
        recipe_made = json.loads(note.read_text(encoding='utf-8'))['recipe']
    except (ValueError, KeyError, TypeError):
        raise InputError(f'{note} cannot be read as the parameters of a digits set; {remedy}') from None
    if recipe_made != _recipe_json(recipe):
        asked = _recipe_json(recipe)
        keys = [key for key in asked if recipe_made.get(key) != asked[key]]
        differing = [f'{key}: {recipe_made.get(key)!r} there, {asked[key]!r} asked for now' for key in keys]
        raise InputError(f'{target} holds a digits set of other parameters ({"; ".join(differing)}); {remedy}')
    counts = zip(SPLITS, (recipe.num_train, recipe.num_val))
    images = (target / split / _image_name(number) for split, count in counts for number in range(1, count + 1))
    return all(path.is_file() for path in [*(target / 'annotations' / f'{split}.json' for split in SPLITS), *images])


def _image_name(number: int) -> str:
    return f'{number:06d}.jpg'


def _recipe_json(recipe: DigitsRecipe) -> dict[str, Any]:
    return {'version': _RECIPE, **asdict(recipe)}


def _load_source() -> _Source:
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError:
        raise InputError(
            'the digits set is made from images that scikit-learn ships; install it with: pip install scikit-learn'
        ) from None
    scans = load_digits()
    photos = tuple(np.asarray(photo) for photo in load_sample_images().images)
    return _Source(scans.images / 16.0, scans.target, photos)


def _write_set(folder: Path, recipe: DigitsRecipe, source: _Source, progress: bool) -> None:
    (folder / 'annotations').mkdir()
    pools = scan_pools(len(source.scans), recipe.seed)
    for split, count in zip(SPLITS, (recipe.num_train, recipe.num_val)):
        (folder / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in _numbers(count, split, progress):
            rng = np.random.default_rng([recipe.seed, 1 + SPLITS.index(split), number])
            background = _background(rng, source.photos, split, recipe.image_size)
            candidates = _choose_scans(rng, source, pools[split])
            image, digits = compose_image(rng, background, source.scans, candidates, recipe.max_overlap)
            name = _image_name(number)
            Image.fromarray(image).save(folder / split / name, quality=_JPEG_QUALITY, subsampling=0)
            images.append(dict(id=number, file_name=name, width=recipe.image_size, height=recipe.image_size))
            for digit in digits:
                annotations.append(_annotation(digit, number, len(annotations) + 1, source.digits))
        _write_json(folder / 'annotations' / f'{split}.json', _coco(images, annotations))
    _write_json(folder / 'digits.json', {'recipe': _recipe_json(recipe), 'attribution': _ATTRIBUTION})


def _numbers(count: int, split: str, progress: bool) -> Iterator[int]:
    """1 to ``count``, behind a progress bar where one is wanted and tqdm is installed."""
    numbers = range(1, count + 1)
    if progress:
        try:
            from tqdm import tqdm
        except ImportError:
            return iter(numbers)
        return iter(tqdm(numbers, desc=split, unit='image'))
    return iter(numbers)


def _background(rng: np.random.Generator, photos: tuple[NDArray[Any], ...], split: str, size: int) -> NDArray[Any]:
    """A random crop (size, size, 3) uint8 of the split's own part of a photograph, flipped in half of the cases."""
    photo = photos[rng.integers(len(photos))]
    cut = int(photo.shape[1] * _PHOTO_CUT)
    own = photo[:, :cut] if split == 'train' else photo[:, cut:]
    side = int(rng.integers(_CROP_SIDE[0], _CROP_SIDE[1] + 1))
    top, left = (int(rng.integers(length - side + 1)) for length in own.shape[:2])
    crop = own[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    resized = Image.fromarray(np.ascontiguousarray(crop)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _choose_scans(rng: np.random.Generator, source: _Source, pool: NDArray[Any]) -> list[int]:
    """1 to 8 scan indices of the pool; the digit is drawn first, so that all ten are equally frequent."""
    wanted = rng.integers(len(CLASSES), size=rng.integers(1, 9))
    return [int(rng.choice(pool[source.digits[pool] == digit])) for digit in wanted]


def _annotation(digit: Digit, image_id: int, annotation_id: int, digits: NDArray[Any]) -> dict[str, Any]:
    """One COCO annotation; ``scan`` is the index in ``load_digits``, ``area`` that of the box (there is no mask)."""
    x, y, width, height = (round(float(value), 2) for value in digit.bbox)
    return dict(
        id=annotation_id,
        image_id=image_id,
        category_id=int(digits[digit.scan]) + 1,
        bbox=[x, y, width, height],
        area=round(width * height, 2),
        iscrowd=0,
        scan=digit.scan,
    )


def _coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    categories = [dict(id=label + 1, name=name, supercategory='digit') for label, name in enumerate(CLASSES)]
    info = dict(description='handwritten digits on photographs', attribution=_ATTRIBUTION)
    return dict(info=info, images=images, annotations=annotations, categories=categories)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(json.dumps(content, indent=None, separators=(',', ':')).encode() + b'\n')  # the same everywhere

"""A COCO-style set opened as training opens it, by the data set class of the config, beside what its file holds."""

from __future__ import annotations

import codecs
import contextlib
import copy
import io
import locale
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compat import without_garbage_collection
from ...errors import InputError
from .arrays import CocoArrays, coco_arrays
from .json_file import CocoFile, coco_file, read_coco, say_if_large


@dataclass(frozen=True)
class LoadedSet:
    """What a data set class made of a file. T targets: boxes that are neither crowds nor ignored.

    Attributes:
        coco: the file's records.
        arrays: its annotations, one row each.
        image_rows: rows in ``coco.images`` of the images that are used, in the data set's order.
        counts: targets of each of these.
        labels: (T,) int64, the targets' labels.
        label_names: names of the file's categories in the order of the labels; None where the class does not tell.
        own_rules: whether the class reads records otherwise than ``CocoDataset`` itself.
    """

    coco: CocoFile
    arrays: CocoArrays
    image_rows: NDArray[Any]
    counts: NDArray[Any]
    labels: NDArray[Any]
    label_names: tuple[str, ...] | None
    own_rules: bool


def load_set(dataset: Any, *, need_annotations: bool, check_content: Callable[[CocoFile], None]) -> LoadedSet | None:
    """Fill a copy of a data set. The file is parsed once, by the set's own API, and checked on the way.

    Args:
        dataset: a ``CocoDataset`` or one of a derived class, built with ``lazy_init=True, serialize_data=False``.
        need_annotations: False for a test set, of which only the images and the categories are needed.
        check_content: called with the file's records before they become samples; raises InputError.

    Returns:
        None where the class reads its file in a way of its own, so that nothing can be said of it.

    Raises:
        InputError: what :func:`coco_file`, :func:`coco_arrays` or ``check_content`` raise, or the class cannot load it.
    """
    dataset = copy.copy(dataset)  # the caller's stays empty: what is loaded takes much memory
    path = Path(dataset.ann_file)
    read: list[tuple[CocoFile, CocoArrays]] = []
    api = dataset.COCOAPI

    def checked_api(local_path: str) -> Any:
        say_if_large(path)
        try:
            parsed = api(local_path)
        except Exception:
            read_coco(path, need_annotations=need_annotations)  # says what is wrong with the file, if it is the file
            raise
        coco = coco_file(path, parsed.dataset, need_annotations=need_annotations)
        read.append((coco, coco_arrays(coco)))
        check_content(coco)
        return parsed

    dataset.COCOAPI = checked_api
    try:
        check_encoding(path)
        # with the collector looking for garbage among millions of new records, reading takes twice the time
        with contextlib.redirect_stdout(io.StringIO()), without_garbage_collection():
            dataset.full_init()
            return _loaded(dataset, *read[0]) if read else None
    except InputError:
        raise
    except Exception as error:  # whatever it is, training would end by it
        kind = type(dataset).__name__
        raise InputError(
            f'{kind} cannot load {path}: {type(error).__name__}: {error}; correct it, or the settings'
        ) from error


def check_encoding(path: Path) -> None:
    """Raise InputError where the locale would have a file misread: pycocotools opens it so, and JSON is UTF-8."""
    encoding = locale.getpreferredencoding(False)
    if codecs.lookup(encoding).name != 'utf-8' and path.is_file() and not path.read_bytes().isascii():
        raise InputError(
            f'{path} has letters beyond ASCII, and mmdet would read it as {encoding}, by the locale, instead of UTF-8: '
            'set PYTHONUTF8=1 in the environment, or write the JSON with ensure_ascii=True'
        )


def _loaded(dataset: Any, coco: CocoFile, arrays: CocoArrays) -> LoadedSet:
    from mmdet.datasets import CocoDataset

    row_of = {image['id']: row for row, image in enumerate(coco.images)}
    labels = [
        [instance['bbox_label'] for instance in info['instances'] if not instance['ignore_flag']]
        for info in dataset.data_list
    ]
    name_of = {category['id']: category['name'] for category in coco.categories}
    ids: Sequence[Any] | None = getattr(dataset, 'cat_ids', None)
    kind = type(dataset)
    return LoadedSet(
        coco=coco,
        arrays=arrays,
        image_rows=np.array([row_of[info['img_id']] for info in dataset.data_list], dtype=np.int64),
        counts=np.array([len(image_labels) for image_labels in labels], dtype=np.int64),
        labels=np.array([label for image_labels in labels for label in image_labels], dtype=np.int64),
        label_names=None if ids is None else tuple(name_of[category_id] for category_id in ids),
        own_rules=any(
            getattr(kind, of) is not getattr(CocoDataset, of) for of in ('load_data_list', 'parse_data_info')
        ),
    )

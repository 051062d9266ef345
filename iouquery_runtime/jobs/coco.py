"""A job's detections in COCO's two forms: a dataset, which labelling tools import, and a list of results.

The forms are https://cocodataset.org/#format-data and #format-results. Boxes are x, y, width, height in px, computed
from the float32 corners in double precision, as by mmdet's evaluation. Few rows are held in memory at a time.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import InputError
from ..files import whole_file

if TYPE_CHECKING:
    from pyarrow import Table

ROWS = 256
"""Rows that are Python objects at a time."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(',', ':'))


def write_coco(
    tables: Iterable[Table],
    out: Path,
    *,
    names: Sequence[str],
    category_ids: Sequence[int] | None = None,
    image_ids: str = 'own',
    root: str = '',
) -> None:
    """Write the detections as a COCO dataset: images, annotations with ``score``, categories.

    Label Studio's converter and CVAT's import ``COCO 1.0`` take it as annotations to begin with. ``segmentation`` is
    empty, as they would draw a polygon beside each box. An image that could not be read is left out, and counted in
    ``info``. The file is whole or absent.

    Args:
        tables: a job's rows, with columns id, path, width, height, boxes, scores, labels, error.
        out: the file.
        names: of the classes, by label.
        category_ids: by label; None: from 1, as 0 is no class to CVAT.
        image_ids: 'own': those of the rows; 'numbered': from 1, in the rows' order, for tools that take numbers for
            doubles, which end at 2^53.
        root: the folder that a path loses for ``file_name``, as CVAT takes no absolute ones.

    Raises:
        InputError: the file cannot be written; a row has a label without a name, or values that are not finite.
    """
    ids = _category_ids(names, category_ids)
    out = Path(out)
    left_out = 0
    with whole_file(out) as temporary, _open(temporary) as file, _spool(out.parent) as spool:
        images, annotations = _Array(file), _Array(spool)
        file.write('{"images":[')
        for image_id, row in _rows(tables, image_ids):
            if row['error'] is not None:
                left_out += 1
                continue
            file_name = row['path'].removeprefix(f'{root.rstrip("/")}/') if root else row['path']
            images.add(dict(id=image_id, width=row['width'], height=row['height'], file_name=file_name))
            for detection in _detections(row, image_id, ids):
                width, height = detection['bbox'][2:]
                extent = dict(area=width * height, iscrowd=0, segmentation=[])
                annotations.add(dict(id=annotations.length + 1, **detection, **extent))
        file.write('\n],"annotations":[')
        spool.seek(0)
        shutil.copyfileobj(spool, file, 1 << 16)
        categories = [dict(id=i, name=name, supercategory='') for i, name in zip(ids, names)]
        info = dict(description='Detections by mmdet-iouquery', images_that_could_not_be_read=left_out)
        ending = ',\n'.join(f'"{key}":{_dumps(value)}' for key, value in (('categories', categories), ('info', info)))
        file.write(f'\n],\n"licenses":[],\n{ending}}}\n')


def write_results(
    tables: Iterable[Table],
    out: Path,
    *,
    names: Sequence[str],
    category_ids: Sequence[int] | None = None,
    image_ids: str = 'own',
) -> None:
    """Write the detections as a COCO results list, of image_id, category_id, bbox and score; arguments as above."""
    ids = _category_ids(names, category_ids)
    with whole_file(Path(out)) as temporary, _open(temporary) as file:
        results = _Array(file)
        file.write('[')
        for image_id, row in _rows(tables, image_ids):
            for detection in _detections(row, image_id, ids):
                results.add(detection)
        file.write('\n]\n')


class _Array:
    """The elements of a JSON array, one a line."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.length = file, 0

    def add(self, value: dict[str, Any]) -> None:
        self.file.write(f'{"," if self.length else ""}\n{_dumps(value)}')
        self.length += 1


def _rows(tables: Iterable[Table], image_ids: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The image's id in the file, and the row."""
    if image_ids not in ('own', 'numbered'):
        raise ValueError(f"image_ids must be 'own' or 'numbered', got {image_ids!r}")
    number = 0
    for table in tables:
        for batch in table.to_batches(max_chunksize=ROWS):
            for row in batch.to_pylist():
                number += 1
                yield row['id'] if image_ids == 'own' else number, row


def _detections(row: dict[str, Any], image_id: int, category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Entries of a results list; none where the image could not be read."""
    for (x1, y1, x2, y2), score, label in zip(row['boxes'] or (), row['scores'] or (), row['labels'] or ()):
        if not 0 <= label < len(category_ids):
            raise InputError(
                f'image {row["path"]} has a detection of label {label}; there are {len(category_ids)} classes; give an '
                'id for each class'
            )
        yield dict(image_id=image_id, category_id=category_ids[label], bbox=[x1, y1, x2 - x1, y2 - y1], score=score)


def _category_ids(names: Sequence[str], given: Sequence[int] | None) -> Sequence[int]:
    if given is not None and len(given) != len(names):
        raise ValueError(f'there are {len(given)} category_ids for {len(names)} names; give one for each')
    return range(1, len(names) + 1) if given is None else given


def _dumps(value: object) -> str:
    try:
        return _ENCODER.encode(value)
    except ValueError as error:
        raise InputError(
            f'a detection holds {value!r}, and JSON has only finite numbers; check the weights of the model'
        ) from error


def _open(path: Path) -> TextIO:
    return open(path, 'w', encoding='utf-8')


@contextmanager
def _spool(folder: Path) -> Iterator[TextIO]:
    """A nameless file, which is gone when the process is."""
    with tempfile.TemporaryFile('w+', dir=folder, encoding='utf-8') as file:
        yield file

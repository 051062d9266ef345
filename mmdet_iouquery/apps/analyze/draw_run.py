"""Images of a run's detections, from the files that mmdet's CocoMetric writes.

``val_evaluator = dict(type='CocoMetric', outfile_prefix='work_dirs/x/val', ...)`` leaves ``work_dirs/x/val.bbox.json``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from ...datasets.coco.arrays import coco_arrays
from ...datasets.coco.json_file import CocoFile, Record, read_coco, read_json
from ...errors import InputError
from .draw import Box, draw_side_by_side

_RESULT_KEYS = ('image_id', 'category_id', 'bbox', 'score')


def draw_run(
    ann_file: str | os.PathLike[str],
    image_dir: str | os.PathLike[str],
    results: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    num_images: int = 16,
    score_thr: float = 0.5,
) -> list[Path]:
    """Draw the first images of a set, ground truth beside detections. Crowd and degenerate boxes are left out.

    Args:
        ann_file: COCO JSON of the ground truth.
        image_dir: folder that its file names are relative to.
        results: COCO result file, a list of ``image_id``, ``category_id``, ``bbox`` (x, y, w, h in px), ``score``.
        out_dir: folder to write ``000_<name>.png`` and so on to.
        num_images: how many images, in the order of ``ann_file``.
        score_thr: detections of a lower score are not drawn.

    Returns:
        The paths written.

    Raises:
        InputError: a file is missing or not of that form, a detection's image or category isn't in ``ann_file``, or
            ``num_images`` is below 1.
    """
    if num_images < 1:
        raise InputError(f'draw_run: num_images={num_images}; draw at least one')
    coco = read_coco(ann_file)
    arrays = coco_arrays(coco)
    drawable = ~(arrays.degenerate() | arrays.crowd | arrays.ignored)
    label_of = {category['id']: label for label, category in enumerate(coco.categories)}
    truth = _by_image([annotation for annotation, drawn in zip(coco.annotations, drawable) if drawn], label_of)
    detections = _by_image(_read_results(Path(results), coco, label_of, score_thr), label_of)
    paths = []
    for index, image in enumerate(coco.images[:num_images]):
        name = str(image['file_name'])
        path = Path(out_dir) / f'{index:03d}_{Path(name).stem}.png'
        title = f'{name}, detections from score {score_thr:g} on'
        draw_side_by_side(
            Path(image_dir) / name, truth[image['id']], detections[image['id']], coco.classes, path, title=title
        )
        paths.append(path)
    return paths


def _by_image(records: list[Record], label_of: dict[Any, int]) -> dict[Any, list[Box]]:
    boxes: dict[Any, list[Box]] = defaultdict(list)
    for record in records:
        x, y, width, height = record['bbox']
        boxes[record['image_id']].append(
            Box((x, y, x + width, y + height), label_of[record['category_id']], record.get('score'))
        )
    return boxes


def _read_results(path: Path, coco: CocoFile, label_of: dict[Any, int], score_thr: float) -> list[Record]:
    """The detections above ``score_thr``; every entry of the file is checked first."""
    records = read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(
            f'{path} is not a COCO result file; it must be a list of objects with {", ".join(_RESULT_KEYS)}'
        )
    image_ids = {image['id'] for image in coco.images}
    for index, record in enumerate(records):
        missing = [key for key in _RESULT_KEYS if key not in record]
        if missing:
            raise InputError(
                f'{path}: detection {index} has no {missing[0]!r}; add it: a result has {", ".join(_RESULT_KEYS)}'
            )
        if not isinstance(record['bbox'], list) or len(record['bbox']) != 4:
            raise InputError(
                f'{path}: detection {index} has bbox {record["bbox"]!r}; write [x, y, width, height] in px'
            )
        for key, known in (('image_id', image_ids), ('category_id', label_of)):
            if record[key] not in known:
                raise InputError(
                    f'{path}: detection {index} has {key} {record[key]!r}, which {coco.path} does not have; give the '
                    'annotations that the run was evaluated on'
                )
    return [record for record in records if record['score'] >= score_thr]

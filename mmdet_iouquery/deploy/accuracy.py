"""COCO AP of an exported file, from images and annotations alone."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from iouquery_runtime import Detector

from ..datasets.coco.json_file import CocoFile, read_coco
from ..errors import InputError

METRICS = ('AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l')


@dataclass(frozen=True)
class LabelledImages:
    """A COCO file with its images, for classes that a detector names."""

    file: CocoFile
    folder: Path

    @classmethod
    def read(cls, annotations: str | Path, folder: str | Path) -> LabelledImages:
        """Read the file, and look for its images.

        Raises:
            InputError: the file is missing or unfit, or an image is missing.
        """
        labelled = cls(read_coco(annotations), Path(folder))
        missing = [path for path in labelled.paths() if not path.is_file()]
        if missing:
            raise InputError(
                f'{len(missing)} of {len(labelled.file.images)} images of {annotations} are not in {folder}, the first '
                f'is {missing[0].name}; name the folder that their file_name begins in'
            )
        if not labelled.file.images:
            raise InputError(f'{annotations} has no images; name a file with images and boxes')
        return labelled

    def paths(self) -> list[Path]:
        """Of all images, in the file's order."""
        return [self.folder / image['file_name'] for image in self.file.images]

    def category_ids(self, names: Sequence[str]) -> list[Any]:
        """The file's ids, by the detector's labels.

        Raises:
            InputError: the file lacks a class.
        """
        ids = {category['name']: category['id'] for category in self.file.categories}
        unknown = [name for name in names if name not in ids]
        if unknown:
            raise InputError(
                f'the detector finds {", ".join(unknown[:3])}, which {self.file.path} does not have; its classes are '
                f'{", ".join([*ids][:5])} ...: name the annotations of the classes that the detector was trained on'
            )
        return [ids[name] for name in names]


def progress(images: Sequence[Any], title: str) -> Iterator[Any]:
    """One after the other, with a bar on a terminal, and with a line for each tenth in a log."""
    if sys.stderr.isatty():
        yield from tqdm(images, desc=title, unit='image', mininterval=1, leave=False)
        return
    for number, image in enumerate(images, 1):
        yield image
        if 10 * number // len(images) > 10 * (number - 1) // len(images):
            print(f'{title}: {number} of {len(images)} images', file=sys.stderr, flush=True)


def average_precision(detector: Detector, labelled: LabelledImages, title: str = 'images') -> dict[str, float]:
    """AP, AP50, AP75 and AP of small, medium and large objects, in [0, 1]; -1 where there are no objects.

    Args:
        detector: an exported file.
        labelled: with its classes.
        title: the name that progress is told under.

    Raises:
        InputError: an image cannot be read, or the file lacks a class.
    """
    category_ids = labelled.category_ids(detector.names)
    detections: list[dict[str, Any]] = []
    for image, path in progress(list(zip(labelled.file.images, labelled.paths())), title):
        result = detector(path)
        detections += result.to_coco(image['id'], category_ids)
    return evaluate(labelled, detections, category_ids)


def evaluate(
    labelled: LabelledImages, detections: Sequence[dict[str, Any]], category_ids: Sequence[Any]
) -> dict[str, float]:
    """The numbers of :func:`average_precision` from entries of a results file."""
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells what it does
        truth = COCO()
        file = labelled.file
        boxes = [{'iscrowd': 0, **annotation} for annotation in file.annotations]  # which pycocotools asks for
        truth.dataset = {'images': file.images, 'annotations': boxes, 'categories': file.categories}
        truth.createIndex()
        if not detections:
            return dict.fromkeys(METRICS, 0.0)
        evaluation = COCOeval(truth, truth.loadRes([*detections]), 'bbox')
        evaluation.params.catIds = [*category_ids]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, map(float, evaluation.stats)))

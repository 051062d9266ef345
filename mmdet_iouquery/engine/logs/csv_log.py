"""Tables and image files, for which no other package is needed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import VISBACKENDS
from numpy.typing import NDArray
from PIL import Image

from iouquery_runtime.files import whole_file

from ...file_io import write_text
from .training_log import TrainingLog

_QUALITY = 90  # of JPEG


@VISBACKENDS.register_module()
class CsvLog(TrainingLog):
    """``csv/train.csv`` and ``csv/val.csv``, a row a step, and ``csv/images/NAME/STEP.jpg``.

    A column that comes later is empty in the rows before it. Numbers are written as Python does, so that they are read
    back as they were.
    """

    folder = 'csv'

    def _begin(self, folder: Path, step: int) -> str:
        self._folder = folder
        self._tables = {path.stem: _Table(path, step) for path in folder.glob('*.csv')}
        for path in folder.glob('images/**/*.jpg'):
            if path.stem.isdigit() and int(path.stem) > step:
                path.unlink()
        return str(folder)

    def _write(self, phase: str, values: Mapping[str, float], step: int) -> None:
        name = phase or 'other'
        if name not in self._tables:
            self._tables[name] = _Table(self._folder / f'{name}.csv', step)
        self._tables[name].add(step, values)

    def _write_image(self, name: str, image: NDArray[Any], step: int) -> None:
        with whole_file(self._folder / 'images' / name / f'{step:08d}.jpg') as path:
            Image.fromarray(image).save(path, 'JPEG', quality=_QUALITY)


class _Table:
    """A CSV file of one row a step, steps rising. Rows after step ``last``, and one that is not whole, are dropped."""

    def __init__(self, path: Path, last: int) -> None:
        self.path = path
        self.columns: list[str] = []
        self.last = -1
        if path.is_file():  # of an earlier start
            self._replace([row for row in self._rows() if int(row['step']) <= last])

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Put values into the row of a step."""
        row = {'step': step, **values}
        if step > self.last and row.keys() <= {*self.columns}:
            with self.path.open('a', encoding='utf-8', newline='') as file:
                file.write(_text([row], self.columns))
            self.last = step
        else:
            rows = {int(known['step']): known for known in self._rows()}
            rows[step] = {**rows.get(step, {}), **row}
            self._replace([rows[number] for number in sorted(rows)])

    def _rows(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        whole = self.path.read_text(encoding='utf-8').rpartition('\n')[0]
        return list(csv.DictReader(io.StringIO(whole)))

    def _replace(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.columns = list(dict.fromkeys(name for row in rows for name in row))
        self.last = int(rows[-1]['step']) if rows else -1
        write_text(self.path, _text([dict(zip(self.columns, self.columns)), *rows], self.columns))


def _text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    out = io.StringIO()
    csv.DictWriter(out, columns, lineterminator='\n').writerows(rows)
    return out.getvalue()

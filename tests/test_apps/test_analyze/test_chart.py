"""Files of a chart."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mmdet_iouquery.apps.analyze.chart import Chart, new_figure, save_chart


def test_every_number_is_in_the_files_to_the_last_digit(tmp_path: Path) -> None:
    figure = new_figure(320, 200)
    axes = figure.add_subplot()
    rows = [{'model': 'a, b', 'x': 0.1 + 0.2, 'y': None}, {'model': 'c', 'x': 1e-17, 'z': 3}]
    axes.plot([0, 1], [0.1 + 0.2, 1e-17])
    paths = save_chart(Chart('two-points', 'Two', 'Read it.', figure, rows), tmp_path / 'new')
    assert [path.name for path in paths] == [f'two-points.{kind}' for kind in ('png', 'svg', 'csv', 'json')]
    with open(paths[2], newline='') as file:
        read = list(csv.DictReader(file))
    assert [float(row['x']) for row in read] == [0.1 + 0.2, 1e-17]
    assert read[0]['y'] == '' and read[0]['z'] == '' and read[0]['model'] == 'a, b'
    assert json.loads(paths[3].read_text()) == rows
    from PIL import Image

    assert Image.open(paths[0]).size == (320, 200)
    assert '<svg' in paths[1].read_text()


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='JSON'):
        save_chart(Chart('bad', '', '', new_figure(100, 100), [{'x': float('nan')}]), tmp_path)

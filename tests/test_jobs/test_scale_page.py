"""The lines of docs/scale.md do what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('pyarrow')

import pyarrow as pa
from pyarrow import parquet

PAGE = (Path(__file__).resolve().parents[2] / 'docs' / 'scale.md').read_text(encoding='utf-8')
NAMES = ['person', 'dog', 'Fahrrad ü']


def python_of(module: str) -> str:
    """The block of Python that imports a module."""
    (block,) = [code for code in re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL) if f'import {module}' in code]
    return block


@pytest.fixture
def written_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Rows in ``found/parts`` of the current folder, of two files."""
    boxes = [[1.5, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.5]]
    rows = [
        dict(id=1, path='a.jpg', width=64, height=48, boxes=boxes, scores=[0.75, 0.25], labels=[2, 0], error=None),
        dict(id=2, path='b.jpg', width=64, height=48, boxes=[], scores=[], labels=[], error=None),
        dict(id=3, path='c.jpg', width=0, height=0, boxes=[], scores=[], labels=[], error='it is broken'),
        dict(id=4, path='d.jpg', width=64, height=48, boxes=boxes[:1], scores=[0.875], labels=[1], error=None),
    ]
    corners = pa.list_(pa.list_(pa.float32()))
    schema = pa.schema(
        [
            *(('id', pa.int64()), ('path', pa.string()), ('width', pa.int32()), ('height', pa.int32())),
            *(('boxes', corners), ('scores', pa.list_(pa.float32())), ('labels', pa.list_(pa.int32()))),
            ('error', pa.string()),
        ],
        metadata={'names': json.dumps(NAMES, ensure_ascii=False)},
    )
    (tmp_path / 'found' / 'parts').mkdir(parents=True)
    for number, of_file in enumerate((rows[:3], rows[3:])):
        table = pa.Table.from_pylist(of_file, schema=schema)
        parquet.write_table(table, tmp_path / 'found' / 'parts' / f'{number:06}.parquet')
    monkeypatch.chdir(tmp_path)
    return rows


def test_lines_for_duckdb(written_rows: list[dict[str, Any]]) -> None:
    pytest.importorskip('duckdb')
    pytest.importorskip('pandas')
    namespace: dict[str, Any] = {}
    exec(python_of('duckdb'), namespace)
    assert namespace['rows'] == [(4, 1)]
    assert [json.loads(value) for (value,) in namespace['names'].fetchall()] == [NAMES]
    detections = namespace['detections'].sort_values('path').values.tolist()
    assert detections == [['a.jpg', 1.5, 2.0, 3.0, 4.0, 0.75, 2], ['d.jpg', 1.5, 2.0, 3.0, 4.0, 0.875, 1]]


def test_lines_for_pandas(written_rows: list[dict[str, Any]]) -> None:
    pytest.importorskip('pandas')
    namespace: dict[str, Any] = {}
    exec(python_of('pandas'), namespace)
    assert len(namespace['images']) == 4 and namespace['images'].error.notna().sum() == 1
    detections = [
        (path, list(box), score, name)
        for path, box, score, name in namespace['detections'][['path', 'boxes', 'scores', 'name']].values
    ]
    assert detections == [
        ('a.jpg', [1.5, 2.0, 3.0, 4.0], 0.75, 'Fahrrad ü'),
        ('a.jpg', [5.0, 6.0, 7.0, 8.5], 0.25, 'person'),
        ('d.jpg', [1.5, 2.0, 3.0, 4.0], 0.875, 'dog'),
    ]


def test_options_are_those_that_there_are() -> None:
    """Of lines to type, test_pages.py holds the same."""
    command = pytest.importorskip('iouquery_runtime.jobs.command')
    help_text = command.parser('predict', help='').format_help()
    options = {*re.findall(r'`(--[a-z-]+)', PAGE)}
    assert len(options) > 5 and all(option in help_text for option in options)


def test_sums_are_right() -> None:
    """Days, hours and minutes by images/s."""
    seconds = dict(days=86400, hours=3600, minutes=60)
    rows = re.findall(r'^\| ([\d,]+) \| ([\d,.]+) (\w+) \| ([\d,.]+) (\w+) \| \d+ [MG]B/s \|$', PAGE, re.MULTILINE)
    assert len(rows) == 4
    for rate, long, long_unit, short, short_unit in rows:
        for images, number, unit in ((1e9, long, long_unit), (1e7, short, short_unit)):
            stated = float(number.replace(',', '')) * seconds[unit]
            assert images / float(rate.replace(',', '')) == pytest.approx(stated, rel=0.03)  # the page has two digits


def test_a_stop_before_anything_was_done_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> int:
        raise KeyboardInterrupt

    assert pytest.importorskip('iouquery_runtime.jobs.command').ended(stopped) == 130
    assert capsys.readouterr().err == 'stopped by SIGINT; nothing was detected yet\n'

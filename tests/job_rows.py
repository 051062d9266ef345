"""Rows of a job, beside those of a plain loop over the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tolerances import about

from iouquery_runtime import Detector
from iouquery_runtime.jobs import parts
from iouquery_runtime.jobs.sources import path_id

Rows = list[dict[str, Any]]


def rows(out: Path) -> Rows:
    """All rows by path, without the ids, which are looked at where they are."""
    entries = [row for table in parts.part_tables(out / 'parts') for row in table.to_pylist()]
    assert len({row['id'] for row in entries}) == len(entries), 'ids are there once'
    return sorted(entries, key=lambda row: row['path'])


def expected(model: Path, folder: Path) -> Rows:
    """What a plain loop over the runtime gives, in batches of one."""
    expected_rows, detector = [], Detector(model, threads=1)
    for path in sorted(map(str, folder.iterdir())):
        result = detector(path)
        known = dict(id=path_id(path), path=path, width=result.width, height=result.height)
        lists = dict(boxes=result.boxes.tolist(), scores=result.scores.tolist(), labels=result.labels.tolist())
        expected_rows.append({**known, **lists, 'error': None})
    return expected_rows


def same(actual: Rows, wanted: Rows) -> None:
    """Rows are the same: ids, paths, labels, sizes, errors; boxes in px and scores but for rounding, as the graph may
    round batches of another size otherwise."""
    assert [row['path'] for row in actual] == [row['path'] for row in wanted]
    for row, wanted_row in zip(actual, wanted):
        for key in ('id', 'width', 'height', 'labels', 'error'):
            assert row[key] == wanted_row[key], (key, row, wanted_row)
        assert row['scores'] == about(wanted_row['scores'], 'unit')
        for box, wanted_box in zip(row['boxes'], wanted_row['boxes']):
            assert box == pytest.approx(wanted_box, abs=1e-4)  # px

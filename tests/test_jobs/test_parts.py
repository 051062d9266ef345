"""Parts: what is in them, who reads them, and that each is whole or absent, whatever comes in between."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iouquery_runtime.errors import InputError, WriteError
from iouquery_runtime.results import Result

pa = pytest.importorskip('pyarrow')
parquet = pytest.importorskip('pyarrow.parquet')
parts = pytest.importorskip('iouquery_runtime.jobs.parts')
NAMES = ('person', 'Fahrrad ü')


def result(count: int, seed: int = 0, **more: Any) -> Result:
    random = np.random.default_rng(seed)
    boxes = random.random((count, 4), np.float32) * 99
    scores = np.sort(random.random(count, np.float32))[::-1]
    return Result(boxes, scores, random.integers(0, 2, count), ('',) * count, 99 + seed, 77, **more)


def rows(first: int, count: int) -> pa.Table:
    ids = [*range(first, first + count)]
    return parts.rows_of(ids, [f'/{i}.jpg' for i in ids], [result(i % 4, i) for i in ids])


def ids_in(folder: Path) -> list[int]:
    return [i for table in parts.part_tables(folder, ['id']) for i in table['id'].to_pylist()]


def test_rows_hold_what_was_detected() -> None:
    results = [result(3), result(0, 1), Result.failed('it is cut short'), result(2, 2)]
    table = parts.rows_of([4, 2, 9, 7], ['a', 'b', 'c', 'd'], results)
    assert table.schema.equals(parts.COLUMNS)
    table.validate(full=True)
    for row, detections, image_id, path in zip(table.to_pylist(), results, (4, 2, 9, 7), 'abcd'):
        assert (row['id'], row['path'], row['error']) == (image_id, path, detections.error)
        assert (row['width'], row['height']) == (detections.width, detections.height)
        np.testing.assert_array_equal(np.reshape(row['boxes'], (-1, 4)).astype(np.float32), detections.boxes)
        np.testing.assert_array_equal(np.float32(row['scores']), detections.scores)
        np.testing.assert_array_equal(row['labels'], detections.labels)
    assert parts.rows_of([], [], []).num_rows == 0


def test_calibrated_scores_are_rounded_to_single_precision() -> None:
    result = Result(np.zeros((1, 4), np.float32), np.array([0.1]), np.array([0]), ('',), 1, 1)
    assert parts.rows_of([1], ['a'], [result])['scores'].to_pylist() == [[float(np.float32(0.1))]]


def test_other_programs_read_them(tmp_path: Path) -> None:
    writer = parts.PartsWriter(tmp_path, NAMES)
    writer.add(rows(0, 8))
    writer.flush()
    (path,) = tmp_path.iterdir()
    assert path.name == '000000.parquet'
    assert json.loads(parquet.read_schema(path).metadata[b'names']) == [*NAMES]
    duckdb, pandas = pytest.importorskip('duckdb'), pytest.importorskip('pandas')
    answer = duckdb.sql(
        f"SELECT id, len(boxes), boxes[1][4], scores[1] FROM '{tmp_path}/*.parquet' ORDER BY id"
    ).fetchall()
    frame = pandas.read_parquet(tmp_path)
    for i, (image_id, count, bottom, best) in enumerate(answer):
        expected = result(i % 4, i)
        assert (image_id, count) == (i, i % 4) == (frame.id[i], len(frame.boxes[i]))
        if count:
            assert (bottom, best) == (expected.boxes[0, 3], expected.scores[0])
            np.testing.assert_array_equal(np.stack(frame.boxes[i]), expected.boxes)


def test_a_part_is_written_when_it_is_long_or_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(parts.time, 'monotonic', lambda: now[0])
    writer = parts.PartsWriter(tmp_path, NAMES, rows=20, seconds=30)
    for first in (0, 8):
        writer.add(rows(first, 8))
        assert not parts.part_files(tmp_path)
    writer.add(rows(16, 8))
    assert parts.count_rows(tmp_path) == 24
    now[0] += 1000  # nothing waits, so nothing is old
    writer.add(rows(24, 2))
    now[0] += 29
    writer.add(rows(26, 2))
    assert parts.count_rows(tmp_path) == 24
    now[0] += 1
    writer.add(rows(28, 2))
    assert parts.count_rows(tmp_path) == 30 and len(parts.part_files(tmp_path)) == 2
    assert ids_in(tmp_path) == [*range(30)]
    writer = parts.PartsWriter(tmp_path, NAMES, rows=1)
    writer.add(rows(30, 1))
    assert [path.name for path in parts.part_files(tmp_path)] == [f'00000{i}.parquet' for i in range(3)]


def test_what_the_disk_did_not_take_waits_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, write = parts.PartsWriter(tmp_path, NAMES, rows=5), parquet.write_table

    def half(table: Any, file: Any, **_: Any) -> None:
        file.write(b'PAR1')
        raise OSError(errno.ENOSPC, 'whatever')

    with monkeypatch.context() as patch:
        patch.setattr(parts.parquet, 'write_table', half)
        for _ in range(2):
            with pytest.raises(
                WriteError, match=r'000000.parquet cannot be written: No space left on device'
            ) as caught:
                writer.add(rows(0, 5)) if _ == 0 else writer.flush()
            assert caught.value.status == 4 and not [*tmp_path.iterdir()]
    assert parts.parquet.write_table is write
    writer.flush()
    assert ids_in(tmp_path) == [*range(5)]


@pytest.mark.parametrize('after', ['writing', 'naming'])
def test_a_signal_while_a_part_is_written_gives_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Rows are in hand where the part is not there, and are not where it is."""
    writer = parts.PartsWriter(tmp_path, NAMES, rows=5)
    where = (parts.os, 'fsync') if after == 'writing' else (parts, '_sync_folder')

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.add(rows(0, 5))
    assert len([*tmp_path.iterdir()]) == (after == 'naming')
    writer.flush()
    writer.add(rows(5, 5))
    assert ids_in(tmp_path) == [*range(10)]


def test_a_part_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / '000003.parquet').write_bytes(b'PAR1 and no more')
    for read in (parts.count_rows, ids_in):
        with pytest.raises(
            InputError, match=r'000003.parquet cannot be read: .*; remove it, and --resume does its images'
        ):
            read(tmp_path)


def test_rows_of_images_that_could_not_be_read_are_removed(tmp_path: Path) -> None:
    """From a part with one of them; a part of them alone is gone, and one without is not written anew."""
    writer, failed = parts.PartsWriter(tmp_path, NAMES, rows=1), Result.failed('it is cut short')
    for first, results in ((0, [result(2), failed, result(1)]), (3, [failed, failed]), (5, [result(1), result(0)])):
        ids = [*range(first, first + len(results))]
        writer.add(parts.rows_of(ids, [f'/{i}.jpg' for i in ids], results))
    before, schema = (
        {path: path.stat() for path in parts.part_files(tmp_path)},
        parquet.read_schema(tmp_path / '000000.parquet'),
    )
    parts.remove_errors(tmp_path)
    assert ids_in(tmp_path) == [0, 2, 5, 6]
    assert [path.name for path in parts.part_files(tmp_path)] == ['000000.parquet', '000002.parquet']
    assert parquet.read_schema(tmp_path / '000000.parquet').equals(schema, check_metadata=True)
    assert (tmp_path / '000002.parquet').stat() == before[tmp_path / '000002.parquet']

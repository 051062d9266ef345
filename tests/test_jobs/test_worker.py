"""What runs in a worker, run here: rows of a batch, faults of images and of the detector, deaths."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted import Calls, CountedOpener, make_images

from iouquery_runtime import Detector
from iouquery_runtime.errors import InputError, WorkersError
from iouquery_runtime.files import sha256

pytest.importorskip('onnxruntime')
pa = pytest.importorskip('pyarrow')
write_model = pytest.importorskip('exported_files').write_model
worker = pytest.importorskip('iouquery_runtime.jobs.worker')
Root = pytest.importorskip('iouquery_runtime.jobs.sources').Root


class Counts:
    """Of all workers, in one process."""

    def __init__(self, deaths: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self.deaths = deaths

    def was_started_again(self) -> bool:
        return self.deaths > 0

    def begin(self, key: str) -> int:
        self.counts[key] += 1
        return self.counts[key]

    def end(self, *keys: str) -> None:
        for key in keys:
            self.counts.pop(key, None)

    def give_up(self, error: InputError) -> None:
        self.error = error


class Death(BaseException):
    """Ends a worker of these tests, as a signal ends a process."""


class DyingOpener(CountedOpener):
    """Dies in place of the process."""

    def prepare(self, data: bytes, name: str) -> Any:
        self.read.append(Path(name).name)
        if 'dying' in name:
            raise Death
        return super().prepare(data, name)

    read: list[str] = []


@pytest.fixture
def opener(tmp_path: Path) -> CountedOpener:
    return CountedOpener(write_model(tmp_path / 'model.onnx'), tmp_path / 'calls')


def batch(paths: Sequence[Path]) -> pa.Table:
    return pa.table({'id': [*range(len(paths))], 'path': [*map(str, paths)]})


def detecting(opener: Any, attempts: Any = None) -> Any:
    """A worker, as it arrives where it works."""
    return worker.Detecting(pickle.loads(pickle.dumps(opener)), Root.of('.'), attempts or Counts())


def test_rows_are_those_of_the_detector(opener: CountedOpener, tmp_path: Path) -> None:
    """Exactly: the same pixels through the same graph, in one stage and in two."""
    paths = make_images(tmp_path / 'set', 5)
    expected = Detector(tmp_path / 'model.onnx', threads=1)(paths, batch_size=5)
    attempts = Counts()
    reading = worker.Reading(opener, Root.of('.'), attempts)
    for table in (detecting(opener, attempts)(batch(paths)), detecting(opener, attempts)(reading(batch(paths)))):
        assert table['path'].to_pylist() == [*map(str, paths)] and table['id'].to_pylist() == [*range(5)]
        for row, result in zip(table.to_pylist(), expected):
            np.testing.assert_array_equal(np.float32(row['boxes']), result.boxes)
            np.testing.assert_array_equal(np.float32(row['scores']), result.scores)
            assert row['labels'] == result.labels.tolist()
            assert (row['width'], row['height'], row['error']) == (result.width, result.height, None)
    assert not attempts.counts


def test_a_threshold_and_a_graph_of_a_fixed_number(tmp_path: Path) -> None:
    """Batches are as large as the graph takes them; the last is filled up by it."""
    paths = make_images(tmp_path / 'set', 5)
    model = write_model(tmp_path / 'two.onnx', batch=2)
    table = detecting(worker.ExportedOpener(str(model), score_thr=0.6))(batch(paths))
    expected = Detector(model)(paths, score_thr=0.6, batch_size=2)
    assert table['scores'].to_pylist() == [result.scores.tolist() for result in expected]
    assert 0 < sum(map(len, expected)) < 50
    with pytest.raises(InputError, match='score_thr'):
        worker.ExportedOpener(str(model), score_thr=1.5)


def test_an_image_that_cannot_be_read_is_a_row_with_its_error(opener: CountedOpener, tmp_path: Path) -> None:
    paths = make_images(tmp_path / 'set', 3)
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    paths.append(tmp_path / 'set' / 'gone.png')
    rows = detecting(opener)(batch(paths)).to_pylist()
    assert [row['error'] is None for row in rows] == [True, False, True, False]
    assert rows[1]['error'].startswith(f'{paths[1]}: the file is cut short')
    assert 'gone.png' in rows[3]['error'] and 'there is no file' in rows[3]['error']
    assert [len(row['boxes']) for row in rows] == [10, 0, 10, 0]
    assert [(row['width'], row['height']) for row in rows[1::2]] == [(0, 0)] * 2


def test_what_the_detector_fails_on_is_found_one_by_one(opener: CountedOpener, tmp_path: Path) -> None:
    paths = make_images(tmp_path / 'set', 3, 'failing.png')
    rows = detecting(opener)(batch(paths)).to_pylist()
    assert [row['error'] for row in rows[:3]] == [None] * 3 and len(rows[0]['boxes']) == 10
    assert rows[3]['error'] == f'the detector failed on {paths[3]}: RuntimeError: was encountered'


def test_a_detector_that_fails_on_all_is_no_fault_of_the_images(opener: CountedOpener, tmp_path: Path) -> None:
    """19 on end are rows; the 20th ends the job, unless one between them was found."""
    paths = make_images(tmp_path / 'set', 1, *(f'failing{i}.png' for i in range(worker.FAILURES)))
    working = detecting(opener)
    working(batch(paths[1:-1]))
    assert working(batch(paths[:1]))['error'].to_pylist() == [None]
    working(batch(paths[1:-1]))
    with pytest.raises(WorkersError, match=r'failed on .*failing19.png: RuntimeError: .*; so it did on the 19 images'):
        working(batch(paths[-1:]))


@pytest.mark.parametrize('stages', [1, 2])
def test_a_batch_that_kills_is_done_one_by_one(opener: CountedOpener, tmp_path: Path, stages: int) -> None:
    """The image that does it gets an error after three deaths alone; each other one its row, and no count."""
    paths = make_images(tmp_path / 'set', 2, 'dying.png', 'last.png')
    dying, attempts = DyingOpener(tmp_path / 'model.onnx', tmp_path / 'calls'), Counts()
    DyingOpener.read = []
    while True:
        first = (worker.Reading if stages == 2 else worker.Detecting)(dying, Root.of('.'), attempts)
        try:
            table = first(batch(paths))
            break
        except Death:
            attempts.deaths += 1
    assert attempts.deaths == 1 + worker.DEATHS
    if stages == 2:
        table = detecting(opener, attempts)(table)
    rows = table.to_pylist()
    assert rows[2]['error'] == 'the worker died on this image 4 times'
    assert [row['error'] for row in rows if row['id'] != 2] == [None] * 3
    assert [len(row['boxes']) for row in rows] == [10, 10, 0, 10]
    assert {*attempts.counts} == {f'{"read" if stages == 2 else "detect"} 2'}
    assert DyingOpener.read.count('dying.png') == 4 and DyingOpener.read.count('last.png') == 1


def test_a_worker_that_was_started_again_is_careful_at_first(opener: CountedOpener, tmp_path: Path) -> None:
    """As many batches as it can have had at its death; one that was not asks nothing of the others."""
    paths, asked = make_images(tmp_path / 'set', 3), []

    class Asked(Counts):
        def begin(self, key: str) -> int:
            asked.append(key)
            return super().begin(key)

    for deaths, expected in ((0, ['open']), (2, ['open', *[f'detect {i}' for i in range(3)] * worker.IN_FLIGHT])):
        asked.clear()
        working = detecting(opener, Asked(deaths))
        tables = [working(batch(paths)) for _ in range(worker.IN_FLIGHT + 2)]
        assert all(table['labels'] == tables[0]['labels'] for table in tables)
        assert asked == expected


def test_workers_that_die_opening_the_model_do_not_blame_an_image(opener: CountedOpener, tmp_path: Path) -> None:
    paths, attempts = make_images(tmp_path / 'set', 2), Counts()
    attempts.counts['open'] = 3 * worker.DEATHS
    with pytest.raises(WorkersError, match='workers died 9 times while they opened the model'):
        detecting(opener, attempts)(batch(paths))
    assert [*attempts.counts] == ['open']


def test_a_model_that_is_not_the_same_on_a_machine_is_refused(opener: CountedOpener, tmp_path: Path) -> None:
    """Its content, not its name; and what cannot be opened is said as the runtime says it."""
    working = detecting(opener)
    write_model(tmp_path / 'model.onnx', format_changes={'num_queries': '17'})
    with pytest.raises(InputError, match=r'model.onnx has changed, or is another file on this machine'):
        working(batch(make_images(tmp_path / 'set', 1)))
    (tmp_path / 'model.onnx').unlink()
    with pytest.raises(InputError, match=r'there is no file .*model.onnx'):
        working(batch(make_images(tmp_path / 'set', 1)))


def test_models_that_are_none_are_refused_before_there_are_workers(tmp_path: Path) -> None:
    other = write_model(tmp_path / 'other.onnx', format_changes={'iouquery.format': None})
    for path, message in {
        other: 'does not say how it is to be used',
        tmp_path / 'model.pt': 'neither .onnx nor .xml',
        tmp_path / 'gone.onnx': 'there is no file',
    }.items():
        with pytest.raises(InputError, match=message):
            worker.ExportedOpener(str(path))
    with pytest.raises(InputError, match=r'is run by OpenVINO, on the CPU; export an .onnx file'):
        worker.ExportedOpener('model.xml', gpu=True)


def test_openers_say_what_detections_depend_on(tmp_path: Path) -> None:
    model = write_model(tmp_path / 'model.onnx')
    opener = worker.ExportedOpener(str(model), score_thr=0.25, threads=3)
    assert opener.settings == dict(model='model.onnx', sha256=sha256(Path(model)), score_thr=0.25)
    assert opener.names == Detector(model).names
    assert not Calls(tmp_path / 'calls').lines

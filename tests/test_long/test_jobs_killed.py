"""A job over 2,000 images, with 20 kills of workers and 5 of the driver at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from counted import Calls, make_images

pytestmark = pytest.mark.skipif(os.environ.get('LONG_TESTS') != '1', reason='takes minutes: make test-long')
pytest.importorskip('ray')
pytest.importorskip('onnxruntime')
ROOT = Path(__file__).resolve().parents[2]
IMAGES, BATCH, DRIVERS, WORKERS = 2000, 4, 5, 20
SECONDS = 0.05
"""That each image takes longer: with two workers, 50 s in all, within which the kills fall."""


def test_what_is_killed_changes_no_row(tmp_path: Path) -> None:
    """Rows are those of a plain loop, each id once. A run reads nothing that was in a part before it, and each image
    once but for those that a killed worker had in hand, a batch at most."""
    from exported_files import write_model
    from job_rows import expected, rows, same

    random.seed(0)
    model, images = write_model(tmp_path / 'model.onnx'), tmp_path / 'images'
    make_images(images, IMAGES)
    workers_killed = 0
    for run in range(DRIVERS + 1):
        done = {Path(row['path']).name for row in rows(tmp_path / 'out')}
        calls = tmp_path / f'calls{run}'
        is_last = run == DRIVERS
        to_kill = WORKERS - workers_killed if is_last else WORKERS // (DRIVERS + 1)
        until = IMAGES if is_last else len(done) + random.randrange(50, 2 * IMAGES // (DRIVERS + 2))
        killed = disturbed_run(model, images, tmp_path / 'out', calls, to_kill, until)
        workers_killed += killed
        counts = Calls(calls).by_image
        again = sum(counts.values()) - len(counts)
        print(f'run {run}: {len(done)} rows before, {len(counts)} images read, {again} again, {killed} workers killed')
        assert not done & {*counts}
        assert again <= BATCH * killed
    same(rows(tmp_path / 'out'), expected(model, images))
    assert workers_killed == WORKERS
    total = sum((Calls(tmp_path / f'calls{run}').by_image for run in range(DRIVERS + 1)), Counter())
    print(f'{IMAGES} rows; {sum(total.values())} reads')


def disturbed_run(model: Path, images: Path, out: Path, calls: Path, to_kill: int, until: int) -> int:
    """Run a driver, kill workers at random moments, and the driver when so many rows are there; how many workers."""
    command = [sys.executable, str(ROOT / 'tests' / 'counted.py'), *map(str, (model, images, out, calls, SECONDS))]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])}
    killed: set[int] = set()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as driver:
        while driver.poll() is None:
            time.sleep(0.2 + 0.8 * random.random())
            if until < IMAGES and num_rows(out) >= until and len(killed) >= to_kill:
                driver.kill()
                driver.wait()
                return len(killed)
            alive = [pid for pid in Calls(calls).workers - killed if Path(f'/proc/{pid}').exists()]
            if alive and len(killed) < to_kill:
                pid = random.choice(alive)
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        output = driver.communicate()[1]
    assert driver.returncode == 0, output
    return len(killed)


def num_rows(out: Path) -> int:
    from iouquery_runtime.jobs.parts import count_rows

    return count_rows(out / 'parts')

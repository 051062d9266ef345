"""Figures of batch prediction from seconds. No time is measured."""

from __future__ import annotations

import pytest

pytest.importorskip('onnxruntime')
from mmdet_iouquery.apps.benchmark import scale as subject


def test_starting_drops_out_between_few_images_and_more() -> None:
    """10 s to start, 100 images/s of one worker, 160 of two; a plain loop does 110."""
    seconds = {(1, 200): 12.0, (1, 1200): 22.0, (2, 200): 11.25, (2, 1200): 17.5}
    rows = subject._rows({key: subject._Run(value, 300.0) for key, value in seconds.items()}, 110.0)
    assert [(row['side'], row['images']) for row in rows] == [
        ('1 worker', 200),
        ('1 worker', 1200),
        ('2 workers', 200),
        ('2 workers', 1200),
    ]
    assert [row.get('steady_images_per_s') for row in rows] == [None, 100, None, 160]
    assert rows[1]['of_loop'] == pytest.approx(100 / 110) and rows[3]['of_loop'] == pytest.approx(160 / 220)
    assert (rows[1]['efficiency'], rows[3]['efficiency']) == (1, 0.8)
    assert rows[3]['images_per_s'] == pytest.approx(1200 / 17.5) and rows[0]['driver_mb'] == 300


def test_jobs_of_the_command_are_measured() -> None:
    """Each run is checked by its own record: as many rows as images."""
    pytest.importorskip('ray')
    rows = subject.scale(model_names=['DEIMv2-Atto'], side=64, batch=8, counts=[12], workers=[1], rounds=1)
    assert [row['side'] for row in rows] == ['plain loop', '1 worker']
    assert [row['images'] for row in rows] == [12, 12] and all(row['images_per_s'] > 0 for row in rows)

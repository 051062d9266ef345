"""What reading annotations costs: the made-up files are what they say, and the figures come from fresh processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerances import about

from mmdet_iouquery.apps.benchmark.annotation_cost import ReadingCost, measure, per_million, write_synthetic
from mmdet_iouquery.datasets import check_coco


def test_a_made_up_file_passes_the_check(tmp_path: Path) -> None:
    total = write_synthetic(tmp_path / 'a.json', 400, num_classes=7, boxes_per_image=15, seed=3)
    classes = [f'class {i}' for i in range(1, 8)]
    report = check_coco(tmp_path / 'a.json', None, classes)
    assert (report.images, report.annotations, report.degenerate, report.beyond_border) == (400, total, 0, 0)
    assert abs(total / 400 - 15) < 5 * (15 / 400) ** 0.5  # five standard errors of a Poisson mean
    assert list(report.class_counts) == classes and min(report.class_counts.values()) > 0
    write_synthetic(tmp_path / 'b.json', 400, num_classes=7, boxes_per_image=15, seed=3)
    assert (tmp_path / 'a.json').read_bytes() == (tmp_path / 'b.json').read_bytes()
    content = json.loads((tmp_path / 'a.json').read_text())
    assert np.allclose(
        [annotation['area'] for annotation in content['annotations']],
        [np.prod(annotation['bbox'][2:]) for annotation in content['annotations']],
    )


def test_slope_of_a_straight_line() -> None:
    """Whatever the fixed part is."""
    sizes = [10_000, 20_000, 40_000]
    costs = [ReadingCost(2 + 3e-4 * n, 50 + 0.01 * n, 0.004 * n, 7.0) for n in sizes]
    slopes = per_million(sizes, costs)
    assert [slopes.seconds, slopes.peak, slopes.held] == pytest.approx([300, 10_000, 4000])
    assert slopes.worker == about(0, torch.float64)


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is told by /proc')
def test_a_serialised_list_is_shared_with_the_workers(tmp_path: Path) -> None:
    """As Python objects it is copied into each of them, bit by bit as they count references."""
    write_synthetic(tmp_path / 'a.json', 4000)
    plain, serialised = (measure(tmp_path / 'a.json', stage) for stage in ('plain', 'serialised'))
    assert min(plain.seconds, serialised.seconds) > 0 and plain.peak > 40
    assert serialised.worker < 0.25 * plain.worker

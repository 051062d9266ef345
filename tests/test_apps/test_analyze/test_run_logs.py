"""mmengine's logs, as it writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_iouquery.apps.analyze.run_logs import curve_of, read_run
from mmdet_iouquery.errors import InputError


def write(folder: Path, stamp: str, records: list[dict]) -> None:
    path = folder / stamp / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))


def test_a_resumed_run_is_one_curve(tmp_path: Path) -> None:
    first = [{'loss': 9.0, 'step': 10}, {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_50': 0.7, 'step': 0}]
    first += [{'loss': 8.0, 'step': 20}, {'coco/bbox_mAP': 0.2, 'step': 0}]
    write(tmp_path, '20260101_000000', first)
    write(tmp_path, '20260102_000000', [{'loss': 7.0, 'step': 20}, {'loss': 6.0, 'step': 30}, {'coco/bbox_mAP': 0.3}])
    run = read_run(tmp_path)
    assert run.loss.steps == (10, 20, 30) and run.loss.values == (9.0, 7.0, 6.0)
    assert run.ap.steps == (10, 30) and run.ap.values == (0.1, 0.3)
    curve = curve_of('one', [run, run])
    assert curve.name == 'one' and curve.ap == (run.ap,) * 2 and curve.loss == (run.loss,) * 2


def test_what_is_no_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no log of mmengine's"):
        read_run(tmp_path)
    write(tmp_path, 'a', [{'coco/bbox_mAP': 0.1}])
    with pytest.raises(InputError, match='no training loss'):
        read_run(tmp_path)
    (tmp_path / 'a' / 'vis_data' / 'scalars.json').write_text('{"loss": 1, "step": 1}\nhello\n')
    with pytest.raises(InputError, match='line 2 is not a record'):
        read_run(tmp_path)

"""Entries of a config, one or several."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdet_iouquery.apps.compare.settings import Changes, changed_config
from mmdet_iouquery.config_files import config_path
from mmdet_iouquery.config_options import as_list
from mmdet_iouquery.engine import launch

METRICS = "(dict(type='QuerySelectionMetric'), dict(type='CocoMetric', metric=('bbox',)))"


def test_one_entry_or_several_or_none_are_a_list() -> None:
    given = [1, 2]
    assert as_list(given) == [1, 2] and as_list(given) is not given
    assert as_list((1, 2)) == [1, 2]
    assert as_list({'type': 'CocoMetric'}) == [{'type': 'CocoMetric'}] and as_list('bbox') == ['bbox']
    assert as_list(None) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A config whose metrics stand in a tuple."""
    path = tmp_path / 'tuple.py'
    path.write_text(
        f'_base_ = {config_path("quickstart/rtdetr_r18vd_digits.py")!r}\n'
        f'val_evaluator = {METRICS}\ntest_evaluator = {METRICS}\n'
    )
    return path


def test_a_comparison_finds_its_metric_in_a_tuple(path: Path) -> None:
    cfg = changed_config(path, Changes())
    assert isinstance(cfg.val_evaluator, tuple)


def test_a_test_finds_its_metric_in_a_tuple(path: Path) -> None:
    cfg = changed_config(path, Changes())
    assert launch._coco_metric(cfg) is cfg.test_evaluator[1]

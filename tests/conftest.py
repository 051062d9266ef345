"""Shared set-up: our package first (it may have to stand in for mmcv's operators), one seed a test."""

from __future__ import annotations

import gc
import os

import plain_configs  # noqa: F401  before mmengine

if 'PYTEST_XDIST_WORKER' in os.environ:  # one core for each worker and what it starts; torch reads it when it is loaded
    os.environ.setdefault('OMP_NUM_THREADS', '1')

from collections.abc import Iterator

import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.visualization import Visualizer

import mmdet_iouquery  # noqa: F401  before anything of mmdet
from mmdet_iouquery.cpu import convolution

LONGEST = (
    'test_one_door',
    'test_pages',
    'test_predict',
    'test_journey',
    'test_configs',
    'test_distributed_tools',
    'test_cells',
    'test_compare',
    'test_analyze',
    'test_export',
    'test_packaging',
)
"""The files that take longest. They come first, so that none of them is left when the other workers have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope='session', autouse=True)
def _registered() -> Iterator[None]:
    register_all_modules(init_default_scope=True)
    # a million objects of imported packages are there to stay: mmengine has the collector look for waste with every set
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def filtered_small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minimal filtering also in training on maps that are too small for it to pay."""
    monkeypatch.setattr(convolution, '_FEWEST', 1)


@pytest.fixture(autouse=True)
def _own_visualizer() -> Iterator[None]:
    """mmengine hands out one visualizer a name; one of an earlier test writes into a folder that is gone by now."""
    yield
    from mmdet.visualization import DetLocalVisualizer

    for kind in (DetLocalVisualizer, Visualizer):
        kind._instance_dict.clear()

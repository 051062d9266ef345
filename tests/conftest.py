"""Shared set-up: our package first (it may have to stand in for mmcv's operators), one seed a test."""

from __future__ import annotations

import os

if 'PYTEST_XDIST_WORKER' in os.environ:  # one core for each worker and what it starts; torch reads it when it is loaded
    os.environ.setdefault('OMP_NUM_THREADS', '1')

from collections.abc import Iterator

import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.visualization import Visualizer

import mmdet_iouquery  # noqa: F401  before anything of mmdet


@pytest.fixture(scope='session', autouse=True)
def _registered() -> None:
    register_all_modules(init_default_scope=True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_visualizer() -> Iterator[None]:
    """mmengine hands out one visualizer a name; one of an earlier test writes into a folder that is gone by now."""
    yield
    from mmdet.visualization import DetLocalVisualizer

    for kind in (DetLocalVisualizer, Visualizer):
        kind._instance_dict.clear()

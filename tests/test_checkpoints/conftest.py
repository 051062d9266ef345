from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest
import torch
from helpers import difference_as_sets
from torch import Tensor

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.commands import COMMANDS
from mmdet_iouquery.main import main

TESTS = Path(__file__).resolve().parents[1]

GOLDEN = {
    'rtdetr_r18_320x320': {'depth': 18, 'num_layers': 3, 'expansion': 0.5, 'channels': (128, 256, 512)},
    'rtdetr_r50_256x320': {'depth': 50, 'num_layers': 6, 'expansion': 1.0, 'channels': (512, 1024, 2048)},
    'v2_r18-pts_256x256': {'depth': 18, 'decoder': {'num_points': [3, 5, 2]}},
}
"""Golden name to the detector that it was computed with."""


@pytest.fixture(scope='package', autouse=True)
def one_thread() -> Iterator[None]:
    """The models are small, and threads that outnumber the free cores wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module's model ``theirs`` as ``save_pretrained`` writes it."""
    folder = tmp_path_factory.mktemp('hub')
    logging.disable(logging.WARNING)
    theirs.save_pretrained(folder)
    logging.disable(logging.NOTSET)
    return folder


@pytest.fixture(scope='session')
def formula() -> Any:
    spec = importlib.util.spec_from_file_location('golden_formula', TESTS / 'golden_formula.py')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def fill(formula: Any) -> Callable[..., dict[str, Tensor]]:
    """Weights for keys and shapes, the same on every machine."""
    return lambda shapes: {key: torch.as_tensor(formula.tensor(key, tuple(shape))) for key, shape in shapes.items()}


@pytest.fixture(scope='session')
def difference() -> Callable[..., float]:
    return difference_as_sets


@pytest.fixture(scope='session')
def golden_weights(fill: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """The reference's state dict of a golden name."""
    return lambda name: fill(json.loads((TESTS / 'data' / f'{name}.keys.json').read_text()))


@pytest.fixture(scope='session')
def build_detector() -> Callable[..., Any]:
    """Our detector, in eval mode."""
    from mmdet.registry import MODELS

    def build(
        depth: int,
        num_layers: int = 3,
        expansion: float = 0.5,
        channels: tuple[int, ...] = (128, 256, 512),
        num_classes: int = 80,
        backbone: dict | None = None,
        neck: dict | None = None,
        num_queries: int = 300,
        decoder: dict | None = None,
    ) -> Any:
        return MODELS.build(
            {
                'type': 'SingleStageDetector',
                'backbone': {'type': 'ResNetVd', 'depth': depth, 'out_indices': (1, 2, 3), **(backbone or {})},
                'neck': {'type': 'HybridEncoder', 'in_channels': channels, 'expansion': expansion, **(neck or {})},
                'bbox_head': {
                    'type': 'RTDETRHead',
                    'num_classes': num_classes,
                    'query_selector': {'type': 'IoUAwareQuerySelector', 'num_queries': num_queries},
                    'denoising': {'type': 'ContrastiveDenoising'},
                    'decoder': {'type': 'DeformableDecoder', 'num_layers': num_layers, **(decoder or {})},
                },
            }
        ).eval()

    return build


@pytest.fixture(scope='session')
def golden_detector(build_detector: Callable[..., Any]) -> Callable[..., Any]:
    """Our detector of a golden name."""
    return lambda name: build_detector(**GOLDEN[name])


@pytest.fixture(scope='session')
def load_tool() -> Callable[[str], Any]:
    """A program of ``tools/``: its ``main`` takes the arguments and gives the exit status."""
    command = {entry.tool: name for name, entry in COMMANDS.items()}
    return lambda name: SimpleNamespace(main=lambda arguments: main(arguments, command[f'{name}.py']))


@pytest.fixture(scope='session')
def tool(load_tool: Callable[[str], Any]) -> Any:
    return load_tool('convert_checkpoint')

"""Sizes come from tensors' shapes: exporters and tracers turn what ``len`` gives into a constant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from helpers import FAMILY, random_batch, small_detector
from hosts import HOSTS, host_config, nms_in_torch
from mmdet.registry import MODELS
from torch import Tensor, nn

import mmdet_iouquery
from mmdet_iouquery import prepare_for_inference

PACKAGE = str(Path(mmdet_iouquery.__file__).parent)
PARTS = {
    **FAMILY,
    'dense DAB decoder': {'bbox_head__decoder': {'_delete_': True, 'type': 'DABDecoder', 'num_layers': 2}},
    'learned anchors': {'bbox_head__query_selector': {'_delete_': True, 'type': 'LearnedAnchors', 'num_queries': 30}},
    'learned embeddings': {
        'bbox_head__query_selector': {'_delete_': True, 'type': 'LearnedEmbeddings', 'num_queries': 30}
    },
    'score times IoU': {'bbox_head__query_selector__type': 'ScoreTimesIoUQuerySelector'},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where this package asked for a tensor's ``len``."""
    lines, length = [], Tensor.__len__

    def watched(x: Tensor) -> int:
        frame = sys._getframe(1)
        if frame.f_code.co_filename.startswith(PACKAGE):
            lines.append(f'{frame.f_code.co_filename}:{frame.f_lineno}')
        return length(x)

    monkeypatch.setattr(Tensor, '__len__', watched)
    return lines


def run(model: nn.Module, num_classes: int = 5) -> None:
    """A training step's losses, and a prediction, in one and two images."""
    model.init_weights()
    for counts in ([2, 0], [1]):
        images, samples = random_batch(counts, 64, 64, num_classes)
        model.train()
        sum(value for value in _flat(model.loss(images, samples)) if isinstance(value, Tensor)).backward()
        with torch.no_grad():
            model.eval().predict(images, samples)


def _flat(losses: dict) -> list:
    return [term for value in losses.values() for term in (value if isinstance(value, list) else [value])]


def test_the_watch_sees_a_call_from_the_package(asked: list[str]) -> None:
    code = compile('len(x)', f'{PACKAGE}/some_file.py', 'eval')
    eval(code, {'x': torch.ones(2)})
    assert asked == [f'{PACKAGE}/some_file.py:1']


@pytest.mark.parametrize('changes', PARTS.values(), ids=PARTS)
def test_no_part_asks(changes: dict, asked: list[str]) -> None:
    run(small_detector(**changes))
    assert not asked


@pytest.mark.parametrize('changes', FAMILY.values(), ids=FAMILY)
def test_no_prepared_detector_asks(changes: dict, asked: list[str]) -> None:
    prepared = prepare_for_inference(small_detector(**changes))
    asked.clear()  # weights may be measured once, before any graph
    images, samples = random_batch([1, 2], 64, 64)
    with torch.no_grad():
        prepared.predict(images, samples)
    assert not asked


@pytest.mark.parametrize('name', HOSTS)
def test_no_adapter_asks(name: str, asked: list[str]) -> None:
    parts: dict = {'query_selector': {'type': 'IoUAwareQuerySelector'}}
    if name not in ('DINO', 'DDQDETR'):  # which have denoising of their own
        parts['denoising'] = {'type': 'ContrastiveDenoising', 'num_denoising': 4}
    cfg = host_config(name, sigmoid=True, type=HOSTS[name].adapter, **parts)
    with nms_in_torch():
        run(MODELS.build(cfg), 80)
    assert not asked
